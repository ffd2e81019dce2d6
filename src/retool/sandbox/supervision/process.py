"""A process of untrusted code, as the supervisor knows it."""

import os
import signal
import time

from retool.sandbox.containment import linux
from retool.sandbox.supervision.execution import Clocks


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
        try:
            cpu = time.clock_gettime((~self.pid << 3) | 2)  # CPUCLOCK_SCHED of a process, linux/posix-timers.h
            with open(f"/proc/{self.pid}/schedstat", "rb") as file:
                waiting = int(file.read().split()[1]) / 1e9
        except (OSError, IndexError):
            return Clocks(0.0, 0.0)
        return Clocks(cpu, waiting)

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
        with open(f"/proc/self/fdinfo/{handle}") as info:
            super().__init__(next(int(line.split()[1]) for line in info if line.startswith("Pid:")))

    def close(self) -> None:
        os.close(self.handle)

    def _signal(self, number: int) -> None:
        signal.pidfd_send_signal(self.handle, number)
