"""The client's side: starts the supervisor, sends it code, and hands results to whoever waits for them.

One thread of this process does all the talking, so that calls may come from any thread and any event loop, and none
of them ever waits for a pipe.
"""

import asyncio
import hashlib
import itertools
import json
import os
import selectors
import socket
import subprocess
import sys
import threading
import warnings
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

import retool
from retool.config.sandbox import Limits, SandboxConfig
from retool.errors import RetoolError
from retool.sandbox import wire
from retool.sandbox.result import Result
from retool.types import CallStatus

ATTEMPTS = 3
"""How often a call is tried that fails for reasons of the sandbox's own."""

_START_SECONDS = 30.0
_STOP_SECONDS = 5.0
_CHUNK_BYTES = 1 << 18
_SUPERVISOR_COMMAND = "from retool.sandbox.supervision.supervisor import main; main()"
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
        self._connection: _Connection | None = None
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

    def _connected(self) -> "_Connection":
        if os.getpid() != self._owner:
            raise RetoolError("a Sandbox cannot be used in a fork of the process that made it: make one there")
        with self._lock:
            if not self._is_connected():
                if self._connection:
                    self._connection.close()
                self._connection = self._start_supervisor()
            return self._connection

    def _start_supervisor(self) -> "_Connection":
        settings = {
            "workers": self.workers,
            "sessions": self.config.sessions,
            "session_idle_seconds": self.config.session_idle_seconds,
        }
        connection = _Connection(settings)
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


class _Connection:
    """A running supervisor, and the thread that talks to it. Raises RetoolError if it does not start."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.alive = True
        self._ids = itertools.count()
        self._lock = threading.Lock()  # of the three below
        self._outbox = bytearray()
        self._waiting: dict[int, Future[Result]] = {}
        self._closed = False
        self._greeting: Future[dict[str, Any]] = Future()
        self._socket, far_end = socket.socketpair()
        self._wakeup, self._waker = socket.socketpair()
        for end in (self._socket, self._wakeup, self._waker):
            end.setblocking(False)
        with far_end:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _SUPERVISOR_COMMAND, json.dumps(settings)],
                stdin=far_end,
                stdout=subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,  # Ctrl-C in the terminal is for the trainer to handle
            )
        self._thread = threading.Thread(target=self._talk, name="retool-sandbox", daemon=True)
        self._thread.start()
        try:
            self.isolation = self._greeting.result(_START_SECONDS)
        except TimeoutError:
            self.close()
            reason = f"the sandbox did not start within {_START_SECONDS:g} s; the machine may be overloaded"
            raise RetoolError(reason) from None
        except RetoolError:
            self.close()
            raise

    def submit(self, job: dict[str, Any]) -> "Future[Result]":
        """Send `job`. The future holds its result, or RetoolError if the sandbox was closed meanwhile."""
        future: Future[Result] = Future()
        with self._lock:
            if not self.alive:
                future.set_result(_LOST)
                return future
            number = next(self._ids)
            self._post(job | {"id": number})
            self._waiting[number] = future
        future.add_done_callback(lambda done: self._cancel(number) if done.cancelled() else None)
        return future

    def send(self, message: dict[str, Any]) -> None:
        """Send what has no answer."""
        with self._lock:
            if self.alive:
                self._post(message)

    def close(self) -> None:
        """End the supervisor and wait until it is gone."""
        self._closed = True
        self._wake()
        self._thread.join()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for end in (self._wakeup, self._waker):
            end.close()

    def _cancel(self, number: int) -> None:
        with self._lock:
            if self.alive and self._waiting.pop(number, None):
                self._post({"op": "cancel", "id": number})

    def _post(self, message: dict[str, Any]) -> None:
        """Send what can be sent without waiting, and leave the rest to the thread. The caller holds the lock."""
        idle = not self._outbox
        self._outbox += wire.encode(message)
        if idle:
            self._send()
            if self._outbox:
                self._wake()

    def _send(self) -> None:
        try:
            while self._outbox:
                del self._outbox[: self._socket.send(self._outbox)]
        except BlockingIOError:
            return
        except OSError:
            self._outbox.clear()  # the supervisor is gone; the thread reads that from the socket

    def _wake(self) -> None:
        try:
            self._waker.send(b"!")
        except BlockingIOError:
            return  # enough wake-up calls are waiting

    def _talk(self) -> None:
        decoder = wire.Decoder()
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._wakeup, selectors.EVENT_READ)
            while not self._closed:
                with self._lock:
                    interest = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._outbox else 0)
                if selector.get_key(self._socket).events != interest:
                    selector.modify(self._socket, interest)
                ready = {key.fileobj: events for key, events in selector.select()}
                if self._wakeup in ready:
                    self._wakeup.recv(4096)
                if ready.get(self._socket, 0) & selectors.EVENT_WRITE:
                    with self._lock:
                        self._send()
                if ready.get(self._socket, 0) & selectors.EVENT_READ and not self._receive(decoder):
                    break
        self._end()

    def _receive(self, decoder: wire.Decoder) -> bool:
        try:
            data = self._socket.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        for message in decoder.feed(data):
            if message.pop("op") == "hello":
                self._greeting.set_result(message["isolation"])
                continue
            with self._lock:
                future = self._waiting.pop(message.pop("id"), None)
            if future and future.set_running_or_notify_cancel():
                future.set_result(Result(**message | {"status": CallStatus(message["status"])}))
        return bool(data)

    def _end(self) -> None:
        with self._lock:
            lost = not self._closed  # asked once: whoever is told of the loss closes what is left of this connection
            self.alive = False
            waiting, self._waiting = self._waiting, {}
            self._socket.close()
        if not self._greeting.done():
            reason = "the sandbox's supervisor ended while it was starting; its error output says why"
            self._greeting.set_exception(RetoolError(reason))
        for future in waiting.values():
            if not future.set_running_or_notify_cancel():
                continue
            if lost:
                future.set_result(_LOST)
            else:
                future.set_exception(RetoolError("the sandbox was closed while code was running"))


_LOST = Result(CallStatus.SANDBOX_ERROR, reason="the sandbox's supervisor was lost")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _environment() -> dict[str, str]:
    """A clean environment: nothing of this process's own, which may hold keys, reaches the code.

    Hashing is fixed so that sets print alike every time. Numeric libraries get one thread: forking a process with
    threads is unsafe, and a worker is one core.
    """
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONUTF8": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": str(Path(retool.__file__).parents[1]),
    }
    environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment["SYMPY_CACHE_SIZE"] = "None"  # no eviction: a hit changes no memory that is shared with the zygote
    if libraries := os.environ.get("LD_LIBRARY_PATH"):  # where this interpreter's own libraries may be
        environment["LD_LIBRARY_PATH"] = libraries
    return environment
