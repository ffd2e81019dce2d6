"""A process of untrusted code, as the supervisor knows it."""

import os
import signal
import time

from retool.sandbox.containment import linux
from retool.sandbox.supervision.execution import Clocks

_LONGEST = 1 << 14


class NumberedProcess:
    """A process known by its pid: one that this process or the zygote waits for, which is when the pid becomes free."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._first_asked_at: float | None = None

    def clocks(self) -> Clocks:
        """What it has used so far; nothing if it has ended. Outside of Linux, the time since this was first asked."""
        if not linux.IS_LINUX:
            now = time.monotonic()
            self._first_asked_at = self._first_asked_at or now
            return Clocks(now - self._first_asked_at, 0.0)
        schedule = _read(f"/proc/{self.pid}/schedstat").split()
        return Clocks(self.cpu_s(), int(schedule[1]) / 1e9 if schedule else 0.0)

    def cpu_s(self) -> float:
        """CPU seconds it has used so far; 0 if it has ended."""
        try:
            return time.clock_gettime((~self.pid << 3) | 2)  # CPUCLOCK_SCHED of a process, linux/posix-timers.h
        except OSError:
            return 0.0

    def peak_bytes(self) -> int:
        """The most memory that it has held so far; 0 if it has ended."""
        return 1024 * int((status_of(self.pid, "VmHWM") or [b"0"])[0])

    def kill(self) -> None:
        try:
            self._signal(signal.SIGKILL)
        except ProcessLookupError:
            return  # it has just ended

    def close(self) -> None:
        """Let go of it."""

    def _signal(self, number: int) -> None:
        os.kill(self.pid, number)


class Process(NumberedProcess):
    """A process known for certain by `handle`, a descriptor of it (pidfd), which is closed with this object."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        super().__init__(int(_field(_read(f"/proc/self/fdinfo/{handle}"), b"\nPid:")[0]))

    def close(self) -> None:
        os.close(self.handle)

    def _signal(self, number: int) -> None:
        signal.pidfd_send_signal(self.handle, number)


def status_of(pid: int, field: str) -> list[bytes]:
    """The values of a line of /proc/PID/status; none if there is no such process."""
    return _field(_read(f"/proc/{pid}/status"), f"\n{field}:".encode())


def _field(text: bytes, name: bytes) -> list[bytes]:
    _, found, rest = text.partition(name)
    return rest[: rest.index(b"\n")].split() if found else []


def _read(path: str) -> bytes:
    """A short file of the kernel's; empty if it does not tell, say because what it is about has ended."""
    try:
        file = os.open(path, os.O_RDONLY)  # open() takes twice as long
    except OSError:
        return b""
    try:
        return os.read(file, _LONGEST)
    except OSError:
        return b""
    finally:
        os.close(file)
