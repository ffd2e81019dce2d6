"""The process of a vLLM server, with a small program in its place: it starts, and nothing of it is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from retool.errors import RetoolError
from retool.sampling.vllm_server import VllmServer

# As vLLM does, it has a worker, and that one does not end by itself.
STAND_IN = """#!{python}
import http.server, json, os, pathlib, subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, 1); time.sleep(600)"])
(pathlib.Path(__file__).parent / "seen.json").write_text(json.dumps({{
    "pids": [os.getpid(), worker.pid],
    "arguments": sys.argv[1:],
    "dev_mode": os.environ.get("VLLM_SERVER_DEV_MODE"),
}}))
{then}
class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Healthy).serve_forever()
"""

TRAINER = """
import asyncio, os, pathlib, sys
from retool.sampling.vllm_server import VllmServer
async def train():
    served = pathlib.Path(sys.argv[1]).parent / "served"
    async with VllmServer(sys.argv[1], served, dtype="float32", context=100, sequences=8):
        if len(sys.argv) > 2:
            children = pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            assert [os.kill(int(child), 9) for child in children]
        os.kill(os.getpid(), 9)
asyncio.run(train())
"""


@pytest.fixture(autouse=True)
def folder_for_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def stand_in(folder: Path, then: str = "") -> Path:
    program = folder / "python"
    program.write_text(STAND_IN.format(python=sys.executable, then=then))
    program.chmod(0o755)
    return program


def server_of(folder: Path, then: str = "") -> VllmServer:
    program = str(stand_in(folder, then))
    return VllmServer(
        program, folder / "served", dtype="float32", context=100, sequences=8, arguments=["--enforce-eager"]
    )


def seen(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "seen.json").read_text())


def none_runs(folder: Path) -> bool:
    """Wait until the server and its worker have ended; a zombie that nobody has waited for has."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        pids = ",".join(map(str, seen(folder)["pids"]))
        states = subprocess.run(["ps", "-o", "stat=", "-p", pids], capture_output=True, text=True).stdout.split()
        if all(state.startswith("Z") for state in states):
            return True
        time.sleep(0.05)
    return False


def logs(folder: Path) -> list[Path]:
    return list(folder.glob("retool-vllm-*.log"))


def test_it_is_started_for_sampling_and_ended_with_its_children(tmp_path: Path) -> None:
    async def conversation() -> None:
        async with server_of(tmp_path) as server:
            arguments = seen(tmp_path)["arguments"]
            given = dict(pairwise(arguments))
            assert given["--model"] == str(tmp_path / "served")
            assert given["--logprobs-mode"] == "processed_logprobs"
            assert f"http://{given['--host']}:{given['--port']}" == server.url
            assert {"--tokens-only", "--enforce-eager"} <= set(arguments)
            assert seen(tmp_path)["dev_mode"] == "1"
            for pid in seen(tmp_path)["pids"]:
                os.kill(pid, 0)  # raises if there is none

    asyncio.run(conversation())
    assert none_runs(tmp_path) and logs(tmp_path) == []


def test_one_that_does_not_start_says_why_and_leaves_its_log(tmp_path: Path) -> None:
    async def start() -> None:
        async with server_of(tmp_path, then="raise ImportError('No module named vllm')"):
            pass

    with pytest.raises(RetoolError, match="vLLM ended while it started: ImportError: No module named vllm") as error:
        asyncio.run(start())
    (log,) = logs(tmp_path)
    assert str(log) in str(error.value) and "Traceback" in log.read_text()
    assert none_runs(tmp_path)


def test_its_log_stays_where_its_use_failed(tmp_path: Path) -> None:
    async def fail() -> None:
        async with server_of(tmp_path):
            raise RetoolError("the server is gone")

    with pytest.raises(RetoolError, match="is gone"):
        asyncio.run(fail())
    assert len(logs(tmp_path)) == 1 and none_runs(tmp_path)


def test_it_ends_with_its_worker_if_it_is_killed_itself(tmp_path: Path) -> None:
    async def kill() -> None:
        async with server_of(tmp_path):
            os.kill(seen(tmp_path)["pids"][0], signal.SIGKILL)
            assert await asyncio.to_thread(none_runs, tmp_path)

    asyncio.run(kill())


@pytest.mark.parametrize("children_first", [[], ["as Ray does"]])
def test_it_does_not_outlive_a_trainer_that_is_killed(children_first: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", TRAINER, str(stand_in(tmp_path)), *children_first]
    trainer = subprocess.run(command, env=os.environ)
    assert trainer.returncode == -signal.SIGKILL
    assert none_runs(tmp_path)
