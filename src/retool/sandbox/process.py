"""A process of untrusted code, as the supervisor knows it: for certain, whatever its pid is used for later."""

import os
import signal
import time

from retool.sandbox.execution import Clocks


class Process:
    """`handle` is a descriptor of the process (pidfd), to be closed with this object."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        with open(f"/proc/self/fdinfo/{handle}") as info:
            self.pid = next(int(line.split()[1]) for line in info if line.startswith("Pid:"))

    def clocks(self) -> Clocks:
        """What it has used so far; nothing if it has ended."""
        try:
            cpu = time.clock_gettime((~self.pid << 3) | 2)  # CPUCLOCK_SCHED of a process, linux/posix-timers.h
            with open(f"/proc/{self.pid}/schedstat", "rb") as file:
                waiting = int(file.read().split()[1]) / 1e9
        except (OSError, IndexError):
            return Clocks(0.0, 0.0)
        return Clocks(cpu, waiting)

    def kill(self) -> None:
        try:
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)
        except ProcessLookupError:
            return  # it has just ended

    def close(self) -> None:
        os.close(self.handle)
