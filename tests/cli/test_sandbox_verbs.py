"""`retool sandbox run` behaves like Python itself, and `serve` refuses what would be unsafe or cannot be."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

RETOOL = (sys.executable, "-m", "retool", "sandbox")

PROGRAMS = {
    "output on both streams": "import sys; print('ä', input()); print('err', file=sys.stderr)",
    "bytes": "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read().upper())",
    "more than a model is shown": "print('x' * 10 ** 6)",
    "exit code": "import sys; sys.exit(7)",
    "exit with a message": "raise SystemExit('no')",
    "exit that is a success": "import sys; sys.exit(0)",
    "another encoding": "# coding: latin-1\nprint('\xe9')",
}


def run(*words: object, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [*RETOOL, *map(str, words)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, env=os.environ | environment)


def last_line(text: bytes) -> str:
    return text.decode().strip().splitlines()[-1]


def write(path: Path, program: str) -> Path:
    path.write_bytes(program.encode("latin-1" if "latin-1" in program else "utf-8"))
    return path


@pytest.mark.parametrize("name", PROGRAMS)
def test_output_and_exit_code_are_pythons_own(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "program.py", PROGRAMS[name])
    utf8 = os.environ | {"PYTHONUTF8": "1"}
    python = subprocess.run([sys.executable, path], input=b"hello\n", capture_output=True, env=utf8)
    found = run("run", path, "--stdin", "-", stdin=b"hello\n")
    assert (found.stdout, found.stderr, found.returncode) == (python.stdout, python.stderr, python.returncode)


def test_an_exception_ends_with_pythons_traceback_and_exit_code(tmp_path: Path) -> None:
    path = write(tmp_path / "program.py", "def half(n):\n    return n / 0\n\nprint('first')\nhalf(3)\n")
    python = subprocess.run([sys.executable, path], capture_output=True)
    found = run("run", path)
    assert (found.stdout, found.returncode) == (b"first\n", 1)
    assert found.stderr.replace(b"main.py", str(path).encode()) == python.stderr


@pytest.mark.parametrize(
    ("program", "options", "code", "reason"),
    [
        ("while True: pass", ["--cpu-seconds", "0.2"], 124, "used more than 0.2 s of CPU time"),
        ("import time; time.sleep(9)", ["--idle-seconds", "0.2"], 124, "waited for more than 0.2 s"),
        ("data = bytearray(1 << 28)", ["--memory-mib", "64"], 137, "needed more than 64 MiB of memory"),
        ("while True: print('x' * 10 ** 6)", [], 137, "printed more than 64 MiB"),
        ("import os; os.kill(os.getpid(), 11)", [], 139, "ended by signal 11"),
    ],
)
def test_what_was_ended_says_why(program: str, options: list[str], code: int, reason: str) -> None:
    found = run("run", "-", *options, stdin=program.encode())
    assert found.returncode == code
    assert last_line(found.stderr).startswith("retool: ") and reason in last_line(found.stderr)


def test_a_last_value_is_echoed_on_request_and_the_key_seeds(tmp_path: Path) -> None:
    path = write(tmp_path / "program.py", "import random\nrandom.random()")
    assert run("run", path).stdout == b""
    values = [run("run", path, "--echo", "--key", key).stdout for key in ("a", "a", "b")]
    assert values[0] == values[1] != values[2]


def test_a_reader_that_leaves_ends_it_without_a_word(tmp_path: Path) -> None:
    path = write(tmp_path / "program.py", "print('x' * 10 ** 6)")
    with subprocess.Popen([*RETOOL, "run", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("run", "nowhere.py"), "cannot read nowhere.py: No such file or directory"),
        (("run", "-", "--stdin", "-"), "cannot both come from standard input"),
        (("run", "-", "--cpu-seconds", "0"), "cpu_seconds must be at least 0.05, found 0.0"),
        (("serve", "--host", "0.0.0.0"), "0.0.0.0 can be reached from other machines"),
        (("serve", "--host", "::"), "give --token, or --host 127.0.0.1"),
        (("serve", "--token", "a b"), "the token must be of visible ASCII characters"),
        (("serve", "--workers", "0"), "workers must be at least 1, found 0"),
    ],
)
def test_bad_usage_gets_one_sentence(words: tuple[str, ...], reason: str) -> None:
    found = run(*words, RETOOL_SANDBOX_TOKEN="")
    assert found.returncode == 2
    assert reason in found.stderr.decode()
    assert len(found.stderr.splitlines()) == 1


def test_bytes_that_are_no_program_are_refused() -> None:
    found = run("run", "-", stdin=b"\xff\xfe\x00")
    assert found.returncode == 2
    assert "- is not a Python program" in last_line(found.stderr)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = run("serve", "--port", port)
    assert found.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in last_line(found.stderr)


def test_without_its_libraries_serve_names_what_to_install() -> None:
    code = (
        "import sys; sys.modules['aiohttp'] = None; sys.argv = ['retool', 'sandbox', 'serve']; import retool.__main__"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 2
    assert found.stderr == "retool: serving needs the library aiohttp: pip install 'retool[serve]'\n"


def test_the_command_line_starts_without_the_server() -> None:
    code = "import sys, retool.cli.main; print({'aiohttp', 'prometheus_client', 'numpy'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"
