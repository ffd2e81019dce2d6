"""The line between a client and its supervisor: starts it, sends it jobs, and hands results to whoever waits.

One thread does all the talking, so that calls may come from any thread and any event loop, and none of them ever waits
for a pipe.
"""

import itertools
import json
import os
import selectors
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import retool
from retool.errors import RetoolError
from retool.sandbox import wire
from retool.sandbox.result import Result
from retool.types import CallStatus

_START_SECONDS = 30.0
_STOP_SECONDS = 5.0
_CHUNK_BYTES = 1 << 18
_SUPERVISOR_COMMAND = "from retool.sandbox.supervision.supervisor import main; main()"


class Connection:
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
    environment["LD_BIND_NOW"] = "1"  # functions are looked up once, and not anew in every fork
    environment["SYMPY_CACHE_SIZE"] = "None"  # no eviction: a hit changes no memory that is shared with the zygote
    if libraries := os.environ.get("LD_LIBRARY_PATH"):  # where this interpreter's own libraries may be
        environment["LD_LIBRARY_PATH"] = libraries
    return environment
