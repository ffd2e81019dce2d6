"""The sandbox as its users see it: calls, sessions, and a supervisor that is started and replaced behind them."""

import asyncio
import hashlib
import itertools
import os
import sys
import threading
import warnings
from typing import Any, Self

from retool.config.sandbox import Limits, SandboxConfig
from retool.errors import RetoolError
from retool.sandbox.connection import Connection
from retool.sandbox.result import Result
from retool.types import CallStatus

ATTEMPTS = 3
"""How often a call is tried that fails for reasons of the sandbox's own."""

_RETRIED = (CallStatus.SANDBOX_ERROR, CallStatus.OVERLOAD)
_LIMITS = frozenset(Limits.model_fields)


class Sandbox:
    """Executes Python code in processes of its own that are locked away from this one.

        async with Sandbox() as box:            # or: with Sandbox() as box: box.run_blocking(code)
            result = await box.run(code)

    It may be shared by threads and by consecutive event loops, and used again after `close`. The supervisor is started
    by the first call, or on entering; one that dies is replaced. Not for use in a fork of the process that made it.
    """

    def __init__(self, config: SandboxConfig | None = None) -> None:
        self.config = config or SandboxConfig()
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._owner = os.getpid()

    @property
    def workers(self) -> int:
        """How many executions run at the same time."""
        return self.config.workers or max(2, _cores() // 2)

    @property
    def isolation(self) -> dict[str, Any]:
        """What contains the code on this system, as a JSON object; starts the sandbox if need be."""
        return self._connected().isolation

    def start(self) -> None:
        """Start the supervisor now and wait until it is ready, about 0.1 s.

        Raises RetoolError when it cannot start, or cannot contain code and `allow_weak` is off.
        """
        self._connected()

    def close(self) -> None:
        """End the supervisor and everything that it runs. Calls still under way raise RetoolError."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection:
            connection.close()

    async def run(
        self,
        code: str,
        limits: Limits | None = None,
        key: object = None,
        *,
        group: str = "",
        stdin: str = "",
        echo: bool = False,
    ) -> Result:
        """Execute `code` as a program of its own, with the config's limits or with `limits`.

        The same code and `key` give the same output: everything random is seeded by `repr(key)`. Calls that wait are
        served in turns between `group`s, say trajectories. `stdin` is what the program reads. With `echo` the value of
        a last expression is printed, as in a notebook. Cancelling the call kills the execution. Raises RetoolError if
        the sandbox cannot be started.
        """
        job = self._job(code, limits, key, group, stdin, echo)
        for _ in range(ATTEMPTS):
            if not self._is_connected():
                await asyncio.to_thread(self.start)
            result = await asyncio.wrap_future(self._connected().submit(job))
            if result.status not in _RETRIED:
                break
        return result

    def run_blocking(
        self,
        code: str,
        limits: Limits | None = None,
        key: object = None,
        *,
        group: str = "",
        stdin: str = "",
        echo: bool = False,
    ) -> Result:
        """The same as `run` without an event loop: blocks the calling thread."""
        job = self._job(code, limits, key, group, stdin, echo)
        for _ in range(ATTEMPTS):
            result = self._connected().submit(job).result()
            if result.status not in _RETRIED:
                break
        return result

    def session(self, key: object = None, *, group: str = "") -> "Session":
        """A new session: code that it runs finds the variables of the code before. See `Session`."""
        return Session(self, key, group)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    def _job(self, code: str, limits: Limits | None, key: object, group: str, stdin: str, echo: bool) -> dict[str, Any]:
        seed = hashlib.blake2b(repr(key).encode("utf-8", "backslashreplace"), digest_size=8).digest()
        return {
            "op": "run",
            "code": code,
            "seed": int.from_bytes(seed, "big"),
            "limits": (limits or self.config).model_dump(include=_LIMITS),
            "group": group,
            "stdin": stdin,
            "echo": echo,
            "session": None,
            "opens": False,
        }

    def _is_connected(self) -> bool:
        return self._connection is not None and self._connection.alive

    def _connected(self) -> "Connection":
        if os.getpid() != self._owner:
            raise RetoolError("a Sandbox cannot be used in a fork of the process that made it: make one there")
        with self._lock:
            if not self._is_connected():
                if self._connection:
                    self._connection.close()
                self._connection = self._start_supervisor()
            return self._connection

    def _start_supervisor(self) -> "Connection":
        settings = {
            "workers": self.workers,
            "sessions": self.config.sessions,
            "session_idle_seconds": self.config.session_idle_seconds,
        }
        connection = Connection(settings)
        weakness = connection.isolation["weak"]
        if weakness and not self.config.allow_weak and sys.platform == "linux":
            connection.close()
            raise RetoolError(
                f"the sandbox refuses to run: {weakness}. Use Linux 5.13 or later with Landlock and seccomp, "
                "or accept the risk with sandbox.allow_weak=true"
            )
        if weakness:
            warnings.warn(f"code from the model runs in a weak sandbox: {weakness}", RuntimeWarning, stacklevel=3)
        return connection


class Session:
    """Runs blocks of code one after another; each finds the variables that the blocks before have left.

        async with box.session() as session:
            await session.run("x = 6")
            result = await session.run("print(x * 7)")

    A block that does not end with status `ok` changes nothing: the next one starts from the state before it. Blocks
    have no standard input. Threads do not live on from block to block. A session uses no CPU between blocks, but the
    memory of its variables; the config bounds how many are open (further ones wait) and how long one may rest. A
    session that is lost, by its own fault or the sandbox's, answers SANDBOX_ERROR from then on.
    """

    _numbers = itertools.count()

    def __init__(self, sandbox: Sandbox, key: object, group: str) -> None:
        self._sandbox, self._key, self._group = sandbox, key, group
        self._number = next(self._numbers)
        self._opened = False

    async def run(self, code: str, limits: Limits | None = None, *, echo: bool = False) -> Result:
        """Execute `code` as the next block. Raises RetoolError if the sandbox cannot be started."""
        job = self._job(code, limits, echo)
        if not self._sandbox._is_connected():
            await asyncio.to_thread(self._sandbox.start)
        return await asyncio.wrap_future(self._sandbox._connected().submit(job))

    def run_blocking(self, code: str, limits: Limits | None = None, *, echo: bool = False) -> Result:
        """The same as `run` without an event loop: blocks the calling thread."""
        job = self._job(code, limits, echo)
        return self._sandbox._connected().submit(job).result()

    def close(self) -> None:
        """Give its memory back; does not wait."""
        if self._opened and self._sandbox._is_connected():
            self._sandbox._connected().send({"op": "end", "session": self._number})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def _job(self, code: str, limits: Limits | None, echo: bool) -> dict[str, Any]:
        job = self._sandbox._job(code, limits, self._key, self._group, "", echo)
        opens, self._opened = not self._opened, True
        return job | {"session": self._number, "opens": opens}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
