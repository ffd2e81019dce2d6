"""A session keeps the variables of the blocks that went well, and is as contained as anything else."""

import asyncio
import contextlib
import os
import signal
import textwrap
import time
from collections.abc import Iterator

import pytest
from processes import descendants, eventually, is_at_rest

from conftest import SHORT
from retool.sandbox import Limits, Sandbox, SandboxConfig, Session


@pytest.fixture(scope="module")
def notebook_box() -> Iterator[Sandbox]:
    """A sandbox with room for two sessions."""
    with Sandbox(SandboxConfig(**SHORT.model_dump() | {"sessions": 2})) as sandbox:
        yield sandbox


@pytest.fixture
def session(notebook_box: Sandbox) -> Iterator[Session]:
    with notebook_box.session() as opened:
        yield opened


def processes(sandbox: Sandbox) -> set[int]:
    return descendants(sandbox._connection._process.pid)


def say(session: Session, code: str, **options: object) -> str:
    return session.run_blocking(textwrap.dedent(code), **options).text


def test_blocks_share_variables_functions_and_imports(session: Session) -> None:
    assert say(session, "import math\nx = 6\ndef area(r): return math.floor(r * x)") == ""
    assert say(session, "print(area(7))") == "42"
    assert say(session, "x += 1\narea(7)", echo=True) == "49"


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        ("1 / 0", "error"),
        ("if", "error"),
        ("import sys; sys.exit(3)", "exit"),
        ("import os; os._exit(0)", "exit"),
        ("import os; os.abort()", "signal"),
        ("while True: pass", "time_limit"),
        ("import time; time.sleep(60)", "time_limit"),
        ("y = bytearray(8 << 30)", "memory_limit"),
        ("while True: print('x' * 10000)", "output_limit"),
    ],
)
def test_a_block_that_fails_changes_nothing(session: Session, failure: str, status: str) -> None:
    say(session, "x = [1]\nimport random\nrandom.seed(5)")
    assert session.run_blocking(f"x.append(2)\nimport random\nrandom.random()\n{failure}").status == status
    assert say(session, "print(x)") == "[1]"
    assert say(session, "print(random.random() == random.Random(5).random())") == "True"


def test_a_block_may_end_early_and_well(session: Session) -> None:
    assert session.run_blocking("x = 1\nimport sys\nsys.exit(0)").status == "ok"
    assert say(session, "print(x)") == "1"


def test_a_timer_ends_with_the_block_that_set_it(session: Session) -> None:
    say(session, "import signal\ndef too_late(*_): raise TimeoutError\nsignal.signal(signal.SIGALRM, too_late)")
    say(session, "x = 6\nsignal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)")
    time.sleep(0.5)
    assert say(session, "x * 7", echo=True) == "42"


def test_a_traceback_shows_the_lines_of_the_blocks(session: Session) -> None:
    say(session, "def half(x):\n    return x / 0")
    text = say(session, "half(3)")
    assert 'File "block 2", line 1, in <module>\n    half(3)' in text
    assert 'File "block 1", line 2, in half\n    return x / 0' in text
    assert text.count("File ") == 2


def test_there_is_no_input_and_no_sight_of_the_next_block(session: Session) -> None:
    assert "EOFError" in say(session, "input()")
    assert say(session, "import sys\nprint(repr(sys.stdin.read()))") == "''"


def test_what_a_thread_prints_later_belongs_to_no_block(session: Session) -> None:
    code = """
        import threading, time
        def talk():
            time.sleep(0.1)
            print("late", flush=True)
        threading.Thread(target=talk).start()
        print("now")
    """
    assert say(session, code) == "now"
    time.sleep(0.3)
    assert say(session, "print('next')") == "next"


@pytest.mark.parametrize(
    "noise",
    [
        "while True: os.write(1, b'x' * 60000)",
        "while True:\n        for descriptor in range(3, 10):\n            try: os.write(descriptor, b'S')\n"
        "            except OSError: pass",
    ],
)
def test_a_thread_that_never_ends_holds_up_nobody_else(notebook_box: Sandbox, noise: str) -> None:
    code = f"import os, threading\ndef work():\n    {noise}\nthreading.Thread(target=work, daemon=True).start()"
    with notebook_box.session() as noisy:
        noisy.run_blocking(code)
        started = time.monotonic()
        assert notebook_box.run_blocking("print('well')").text == "well"
        assert time.monotonic() - started < 2
        assert noisy.run_blocking("x = 1").status in ("ok", "output_limit", "sandbox_error")


def test_sessions_know_nothing_of_each_other(notebook_box: Sandbox) -> None:
    with notebook_box.session() as one, notebook_box.session() as other:
        say(one, "x = 1\nopen('file', 'w').write('one')")
        assert "NameError" in say(other, "print(x)")
        assert "FileNotFoundError" in say(other, "open('file')")


def test_the_same_key_and_blocks_print_the_same(notebook_box: Sandbox) -> None:
    def draw(key: int) -> list[str]:
        with notebook_box.session(key) as opened:
            code = "import random, os\nprint(random.random(), os.urandom(4), {'a', 'b', 'c'})"
            return [say(opened, code), say(opened, code)]

    assert draw(1) == draw(1)
    assert len({*draw(1), *draw(2)}) == 4


def test_an_account_is_kept_of_each_block(session: Session) -> None:
    session.run_blocking("pass")
    busy = session.run_blocking("x = bytearray(40 << 20)\nimport time\nwhile time.process_time() < 0.1: pass")
    assert 0.08 < busy.cpu_s < 0.5
    assert busy.peak_bytes > 40 << 20
    assert session.run_blocking("1 / 0").cpu_s < 0.08


FORK = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def attempt(action, *arguments):
    try: print("DONE", action(*arguments))
    except BaseException as error: print(type(error).__name__)
def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0: raise OSError(ctypes.get_errno(), "")
"""


@pytest.mark.parametrize(
    "abuse",
    [
        "attempt(os.fork)",
        "attempt(call, 56, 0x11, 0, 0, 0, 0)",
        "attempt(call, 56, 0x01200011 | 0x10000000, 0, 0, 0, 0)",
        "attempt(call, 57)",
        "attempt(call, 435, 0, 0)",
        "attempt(os.kill, os.getppid(), 9)",
        "attempt(os.kill, 1, 0)",
        "attempt(os.kill, -1, 9)",
        "attempt(os.killpg, 0, 0)",
        "import subprocess; attempt(subprocess.run, ['true'])",
        "import socket; attempt(socket.socket)",
        "attempt(os.pidfd_open, os.getppid())",
        "attempt(open, '/etc/passwd')",
    ],
)
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86-64")
def test_a_block_is_contained(session: Session, abuse: str) -> None:
    say(session, "x = 1")
    text = say(session, FORK + abuse)
    assert "DONE" not in text and text
    assert say(session, "print(x)") == "1"


def test_a_fork_bomb_does_not_multiply(session: Session, notebook_box: Sandbox) -> None:
    say(session, "x = 1")
    before = len(processes(notebook_box))
    bomb = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"
    assert session.run_blocking(bomb).status == "time_limit"
    assert len(processes(notebook_box)) <= before
    assert say(session, "print(x)") == "1"


HIJACK = """
import os, socket, sys, time
frame = sys._getframe()
while frame:
    names = frame.f_globals
    if "_fork" in names: {action}
    frame = frame.f_back
"""


@pytest.mark.parametrize(
    "action",
    [
        "names['_fork'] = lambda: 0",  # the holder runs the next block itself
        "names['_fork'] = lambda: 12345",  # … or pretends that somebody else does
        "names['_read'] = lambda size: time.sleep(60)",
        "names['End'] = None",
        "names['BlockReport'] = None",
    ],
)
def test_whoever_takes_his_session_over_has_it_for_himself(notebook_box: Sandbox, action: str) -> None:
    with notebook_box.session() as taken:
        taken.run_blocking(HIJACK.format(action=action))
        results = [taken.run_blocking("import time\nwhile True: time.sleep(0.01)") for _ in range(2)]
        assert {result.status for result in results} <= {"sandbox_error", "time_limit", "signal", "error", "exit"}
    with notebook_box.session() as another:
        assert say(another, "print('well')") == "well"


def test_a_hidden_process_does_not_outlive_its_session(notebook_box: Sandbox) -> None:
    """The holder is taken over and forks, when it may, a process that keeps silent."""
    hide = "names['_fork'] = lambda fork=names['_fork']: fork() or [None for _ in iter(int, 1)]"
    code = HIJACK.format(action=hide)
    with notebook_box.session() as taken:
        taken.run_blocking(code)
        taken.run_blocking("x = 1")
        taken.run_blocking("x = 2")
    assert notebook_box.run_blocking("print('well')").text == "well"
    assert eventually(lambda: is_at_rest(notebook_box))


def test_forged_reports_end_in_nothing_but_its_own_answers(session: Session, notebook_box: Sandbox) -> None:
    forgery = """
        import os
        for packet in (b"S", b"D", b"E", b"E" + bytes(20), b"R", b"x" * 64):
            for descriptor in range(3, 10):
                try: os.write(descriptor, packet)
                except OSError: pass
        while True: pass
    """
    result = session.run_blocking(textwrap.dedent(forgery))
    assert result.status in ("ok", "time_limit", "sandbox_error", "exit")
    assert notebook_box.run_blocking("print('well')").text == "well"


def test_sessions_beyond_the_limit_wait_for_their_turn(notebook_box: Sandbox) -> None:
    finished: list[str] = []

    async def use(name: str, seconds: float) -> None:
        async with notebook_box.session() as opened:
            await opened.run("x = 1")
            await asyncio.sleep(seconds)
            assert (await opened.run("print(x)")).text == "1"
        finished.append(name)

    async def main() -> None:
        await asyncio.gather(use("long", 0.5), use("short", 0.1), use("third", 0.0))

    asyncio.run(main())
    assert finished == ["short", "third", "long"]


def test_a_session_that_rests_for_too_long_is_ended() -> None:
    config = SandboxConfig(**SHORT.model_dump() | {"session_idle_seconds": 0.3})
    with Sandbox(config) as box, box.session() as opened:
        assert say(opened, "x = 1\nprint(x)") == "1"
        time.sleep(0.2)
        assert say(opened, "print(x)") == "1"
        before = len(processes(box))
        time.sleep(0.6)
        assert len(processes(box)) < before
        assert opened.run_blocking("print(x)").status == "sandbox_error"


def test_closing_a_session_ends_its_processes(notebook_box: Sandbox) -> None:
    opened = notebook_box.session()
    say(opened, "x = 1")
    assert not is_at_rest(notebook_box)
    opened.close()
    assert eventually(lambda: is_at_rest(notebook_box))


def test_a_cancelled_block_is_ended_and_leaves_the_session_as_it_was(session: Session) -> None:
    async def run() -> str:
        await session.run("x = 1")
        block = asyncio.create_task(session.run("x = 2\nwhile True: pass", Limits(cpu_seconds=60.0)))
        await asyncio.sleep(0.2)
        block.cancel()
        return (await session.run("print(x)")).text

    assert asyncio.run(run()) == "1"


def test_a_session_that_is_lost_says_so_and_others_go_on() -> None:
    with Sandbox(SHORT) as box:
        lost = box.session()
        say(lost, "x = 1")
        for pid in processes(box):
            with contextlib.suppress(ProcessLookupError):  # it may die with another one
                os.kill(pid, signal.SIGKILL)
        assert lost.run_blocking("print(x)").status == "sandbox_error"
        assert lost.run_blocking("print(x)").status == "sandbox_error"
        with box.session() as another:
            assert say(another, "print(2)") == "2"
