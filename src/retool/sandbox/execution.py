"""One execution as the supervisor sees it: its pipes, its clocks, and the verdict on how it ended."""

import array
import fcntl
import os
import selectors
import signal
import termios
import time
from typing import Any, NamedTuple

from retool.sandbox import child, linux, wire
from retool.sandbox.capture import Capture

OUTPUT_HARD_LIMIT_BYTES = 64 << 20
"""A stream longer than this ends the execution; below it, output is only cut."""

_CHUNK_BYTES = 1 << 16
_LONGEST_CHECK_SECONDS = 0.1
_SHORTEST_CHECK_SECONDS = 0.005


class Verdict(NamedTuple):
    """How an execution ended: the value of a `CallStatus`, and a sentence where the output alone does not tell why."""

    status: str
    reason: str = ""


_OUTPUT_LIMIT = Verdict(
    "output_limit", f"OutputLimitExceeded: the code printed more than {OUTPUT_HARD_LIMIT_BYTES >> 20} MiB"
)


class Execution:
    """A job of the client from its arrival to its result. `limits` has the fields of `retool.config.sandbox.Limits`."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.id: int = job["id"]
        self.code: str = job["code"]
        self.limits: dict[str, Any] = job["limits"]
        self.seed: int = job["seed"]
        self.queued_at = time.monotonic()
        self.started_at = self.queued_at
        self.next_check = float("inf")
        self.pid: int | None = None
        self.kill_verdict: Verdict | None = None
        self.cancelled = False
        self.stdout = Capture(self.limits["output_bytes"])
        self.stderr = Capture(self.limits["output_bytes"])
        self._pipes: _Pipes | None = None

    def open_pipes(self, selector: selectors.BaseSelector) -> list[int]:
        """Create its pipes; returns the child's ends: job, stdout, stderr. Raises OSError."""
        job = wire.encode({"code": self.code, "seed": self.seed})
        self._pipes = _Pipes(selector, job, (self.stdout, self.stderr))
        return self._pipes.far_ends

    def started(self, pid: int) -> None:
        self.pid = pid
        self.started_at = time.monotonic()
        self.next_check = self.started_at + min(_LONGEST_CHECK_SECONDS, self.limits["cpu_seconds"])

    def check(self, now: float) -> Verdict | None:
        """Compare clocks with limits: the verdict to kill it for, if any. Otherwise plans the next check."""
        cpu_limit, idle_limit = self.limits["cpu_seconds"], self.limits["idle_seconds"]
        cpu, waiting_for_cpu = _clocks(self.pid)
        wall = now - self.started_at
        cpu_left = cpu_limit - cpu
        idle_left = idle_limit - (wall - cpu - waiting_for_cpu)
        wall_left = self.limits["wall_seconds"] - wall
        if self._output_is_too_long():
            return _OUTPUT_LIMIT
        if cpu_left <= 0:
            return self._cpu_limit()
        if idle_left <= 0:
            reason = f"TimeLimitExceeded: the code waited for more than {idle_limit:g} s without computing"
            return Verdict("time_limit", reason)
        if wall_left <= 0:
            return Verdict("overload", "the machine was too busy to run the code")
        pause = min(cpu_left, idle_left, wall_left, _LONGEST_CHECK_SECONDS)
        self.next_check = now + max(pause, _SHORTEST_CHECK_SECONDS)
        return None

    def finish(self, status: int, cpu_s: float, out_of_memory: bool) -> Verdict:
        """Drain and close the pipes; the verdict from the wait status. `out_of_memory`: the kernel has killed for
        memory while this ran."""
        job_unread = self._pipes.close()
        if self._output_is_too_long():
            return _OUTPUT_LIMIT
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number == signal.SIGKILL and self.kill_verdict:
                return self.kill_verdict
            if number in (signal.SIGKILL, signal.SIGXCPU) and cpu_s >= self.limits["cpu_seconds"]:
                return self._cpu_limit()
            if number == signal.SIGKILL and out_of_memory:
                return self._memory_limit()
            return Verdict("signal", f"the code was ended by signal {number} ({signal.strsignal(number)})")
        code = os.WEXITSTATUS(status)
        if code == child.SETUP_FAILED and job_unread:
            return Verdict("sandbox_error", "the process for the code could not be set up")
        if code == child.OUT_OF_MEMORY:
            return self._memory_limit()
        if code == 0:
            return Verdict("ok")
        if code == child.EXCEPTION and self.stderr.total:
            return Verdict("error")
        return Verdict("exit", f"SystemExit: the code ended with exit code {code}")

    def _cpu_limit(self) -> Verdict:
        limit = self.limits["cpu_seconds"]
        return Verdict("time_limit", f"TimeLimitExceeded: the code used more than {limit:g} s of CPU time")

    def _memory_limit(self) -> Verdict:
        limit = self.limits["memory_mib"]
        return Verdict("memory_limit", f"MemoryLimitExceeded: the code needed more than {limit} MiB of memory")

    def abandon(self) -> None:
        """Close the pipes of an execution whose zygote is gone."""
        if self._pipes:
            self._pipes.close()

    def _output_is_too_long(self) -> bool:
        return max(self.stdout.total, self.stderr.total) > OUTPUT_HARD_LIMIT_BYTES


class _Pipes:
    """The near ends of the job's pipe and of both outputs, served by the supervisor's selector."""

    def __init__(self, selector: selectors.BaseSelector, job: bytes, captures: tuple[Capture, Capture]) -> None:
        ends: list[int] = []
        try:
            for _ in range(3):
                ends += os.pipe()
        except OSError:
            for end in ends:
                os.close(end)
            raise
        job_read, job_write, out_read, out_write, error_read, error_write = ends
        self.far_ends = [job_read, out_write, error_write]
        self._selector = selector
        self._job_pipe, self._job_bytes, self._unsent = job_write, len(job), memoryview(job)
        self._outputs = dict(zip((out_read, error_read), captures, strict=True))
        for end in (job_write, out_read, error_read):
            os.set_blocking(end, False)
        for end in self._outputs:
            selector.register(end, selectors.EVENT_READ, lambda end=end: self._read(end))
        self._send()
        if self._unsent:
            selector.register(job_write, selectors.EVENT_WRITE, self._send_more)

    def close(self) -> bool:
        """Take what is left in the outputs and close everything. Returns whether the job was never read."""
        for end in list(self._outputs):
            while self._read(end):
                pass
            if end in self._outputs:
                self._close_output(end)
        unsent, self._unsent = len(self._unsent), memoryview(b"")
        if unsent:
            self._selector.unregister(self._job_pipe)
        in_pipe = array.array("i", [0])
        fcntl.ioctl(self._job_pipe, termios.FIONREAD, in_pipe)
        os.close(self._job_pipe)
        return in_pipe[0] + unsent == self._job_bytes

    def _read(self, end: int) -> bool:
        """Take one chunk of an output; False when there is none now. At its end, close it."""
        if end not in self._outputs:
            return False  # closed by an earlier event of the same turn of the supervisor's loop
        try:
            chunk = os.read(end, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        if chunk:
            self._outputs[end].feed(chunk)
        else:
            self._close_output(end)
        return bool(chunk)

    def _close_output(self, end: int) -> None:
        del self._outputs[end]
        self._selector.unregister(end)
        os.close(end)

    def _send(self) -> None:
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(self._job_pipe, self._unsent) :]
        except BlockingIOError:
            return

    def _send_more(self) -> None:
        if not self._unsent:
            return  # closed by an earlier event of the same turn
        try:
            self._send()
        except BrokenPipeError:
            self._unsent = memoryview(b"")  # the child ended before it had read its code; its exit status tells why
        if not self._unsent:
            self._selector.unregister(self._job_pipe)


def _clocks(pid: int | None) -> tuple[float, float]:
    """Seconds of CPU that a process has used, and seconds that it was ready but had to wait for a CPU."""
    if pid is None or not linux.IS_LINUX:
        return 0.0, 0.0
    try:
        cpu = time.clock_gettime((~pid << 3) | 2)  # CPUCLOCK_SCHED of a process, include/linux/posix-timers.h
        with open(f"/proc/{pid}/schedstat", "rb") as file:
            waiting = int(file.read().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0, 0.0  # it has ended, and the zygote is about to say so
    return cpu, waiting
