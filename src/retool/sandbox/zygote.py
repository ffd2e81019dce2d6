"""A zygote: an interpreter with the usual imports done, that forks one child for each execution.

It is trusted and never sees the code: for each execution it receives three pipe ends, passes them to a fork of itself
and forgets them. Messages from the supervisor (descriptor 0): `spawn` with three descriptors, and `kill`. Messages to
it: `ready` once, `spawned`, and `exited` with the wait status and the kernel's account of what was used.
"""

import gc
import io
import os
import resource
import selectors
import signal
import socket
import sys
from typing import Any, NoReturn

from retool.sandbox import child, isolation, linux, wire
from retool.sandbox.preload import PRELOADS

_CONTROL = 0
_LARGEST_BATCH = 64
_DESCRIPTORS_PER_SPAWN = 3
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)  # Linux only


class Zygote:
    """Serves one supervisor over `control` until it hangs up."""

    def __init__(self, control: socket.socket, address_space: int, filtered: bool) -> None:
        self._control = control
        self._filtered = filtered
        self._decoder = wire.Decoder()
        self._descriptors: list[int] = []
        self._children: dict[int, int] = {}  # execution id by pid
        self._pid = os.getpid()
        self._address_space = address_space

    def serve(self) -> None:
        wakeup, child_ended = socket.socketpair()
        for end in (wakeup, child_ended):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(child_ended.fileno(), warn_on_full_buffer=False)
        selector = selectors.DefaultSelector()
        selector.register(self._control, selectors.EVENT_READ)
        selector.register(wakeup, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if wakeup in ready:
                wakeup.recv(4096)
                self._reap()
            if self._control in ready and not self._receive():
                break
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        while self._children:
            self._children.pop(os.wait()[0], None)

    def _receive(self) -> bool:
        """Handle what the supervisor sent; False when it has hung up."""
        data, descriptors, _, _ = socket.recv_fds(
            self._control, 65536, _LARGEST_BATCH * _DESCRIPTORS_PER_SPAWN, _CLOSE_ON_EXEC
        )
        if not data:
            return False
        self._descriptors += descriptors
        for message in self._decoder.feed(data):
            if message["op"] == "spawn":
                self._spawn(message)
            else:
                self._kill(message["id"])
        return True

    def _spawn(self, message: dict[str, Any]) -> None:
        pipes, self._descriptors = self._descriptors[:3], self._descriptors[3:]
        try:
            pid = os.fork()
        except OSError as error:
            self._send({"op": "failed", "id": message["id"], "reason": f"fork: {error.strerror}"})
        else:
            if pid == 0:
                self._become_child(pipes, message)
            self._children[pid] = message["id"]
            self._send({"op": "spawned", "id": message["id"], "pid": pid})
        for descriptor in pipes:
            os.close(descriptor)

    def _become_child(self, pipes: list[int], message: dict[str, Any]) -> NoReturn:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        child.run(
            *pipes,
            parent=self._pid,
            cpu_seconds=message["cpu_seconds"],
            address_space=self._address_space + message["memory_mib"] * isolation.MIB,
            filtered=self._filtered,
        )

    def _kill(self, execution: int) -> None:
        # A child that has ended is waited for by this process only, so its pid cannot belong to anybody else.
        for pid, known in self._children.items():
            if known == execution:
                os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        while self._children:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            message = {
                "op": "exited",
                "id": self._children.pop(pid),
                "status": status,
                "cpu_s": usage.ru_utime + usage.ru_stime,
                "peak_bytes": usage.ru_maxrss * (1024 if linux.IS_LINUX else 1),
            }
            self._send(message)

    def _send(self, message: dict[str, Any]) -> None:
        self._control.sendall(wire.encode(message))


def _address_space() -> int:
    """Bytes of address space that this process takes before any code runs."""
    if not linux.IS_LINUX:
        return 0
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _open_standard_streams() -> None:
    """Streams that a child inherits: whatever was printed leaves the process at the end of each line."""
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8", "surrogateescape")
    sys.stdout = _line_writer(1)
    sys.stderr = _line_writer(2)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr


def _line_writer(descriptor: int) -> io.TextIOWrapper:
    buffer = io.BufferedWriter(io.FileIO(descriptor, "w", closefd=False))
    return io.TextIOWrapper(buffer, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _die_with(supervisor: int) -> None:
    if linux.IS_LINUX:
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:
            os._exit(0)


def _be_first_to_go() -> None:
    """When memory runs out, the kernel should kill a child rather than the trainer."""
    if linux.IS_LINUX:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")


def main() -> None:
    kind, supervisor = sys.argv[1], int(sys.argv[2])
    _die_with(supervisor)
    _be_first_to_go()
    _open_standard_streams()
    isolation.keep_runtime_path()
    PRELOADS[kind]()
    os.chdir("/")
    control = socket.socket(fileno=os.dup(_CONTROL))
    address_space = _address_space()
    in_force = isolation.contain()
    _die_with(supervisor)  # a change of uid has cleared it
    zygote = Zygote(control, address_space, filtered=in_force.get("seccomp", False))
    control.sendall(wire.encode({"op": "ready", "isolation": in_force}))
    os.environ.pop("PYTHONPATH", None)
    for name in [name for name in sys.modules if name.partition(".")[0] == "retool"]:
        del sys.modules[name]  # code finds the libraries, not the project
    gc.collect()
    gc.freeze()
    gc.disable()
    zygote.serve()
