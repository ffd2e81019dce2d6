"""One execution as the supervisor sees it: a job of the client, its clocks, and the verdict on how it ended."""

import os
import signal
import time
from typing import Any, NamedTuple

from retool.sandbox.interpreter.job import EXCEPTION, OUT_OF_MEMORY, Terms, encode_code
from retool.sandbox.interpreter.preload import kind_of
from retool.sandbox.supervision.capture import Capture

OUTPUT_HARD_LIMIT_BYTES = 64 << 20
"""A stream longer than this ends the execution; below it, output is only cut."""

_LONGEST_CHECK_SECONDS = 0.1
_SHORTEST_CHECK_SECONDS = 0.005


class Verdict(NamedTuple):
    """How an execution ended: the value of a `CallStatus`, and a sentence where the output alone does not tell why."""

    status: str
    reason: str = ""


class Clocks(NamedTuple):
    """Seconds that a process has used of the CPU, and seconds that it was ready but had to wait for a CPU."""

    cpu: float
    waiting: float


_OUTPUT_LIMIT = Verdict(
    "output_limit", f"OutputLimitExceeded: the code printed more than {OUTPUT_HARD_LIMIT_BYTES >> 20} MiB"
)


class Execution:
    """A job of the client from its arrival to its result. `limits` has the fields of `retool.config.sandbox.Limits`."""

    def __init__(self, message: dict[str, Any]) -> None:
        self.id: int = message["id"]
        self.group: str = message["group"]
        self.limits: dict[str, Any] = message["limits"]
        self.session: int | None = message["session"]
        self.kind = kind_of(message["code"]) if self.session is None else f"session {self.session}"
        """What it needs to run: a kind of zygote, or its session."""
        code, cpu_limit = encode_code(message["code"]), int(self.limits["cpu_seconds"])
        terms = Terms(len(code), message["seed"], cpu_limit, self.limits["memory_mib"], message["echo"])
        self.input = terms.encode() + code + _encode_stdin(message["stdin"])
        self.queued_at = time.monotonic()
        self.started_at = self.queued_at
        self.next_check = float("inf")
        self.kill_verdict: Verdict | None = None
        self.cancelled = False
        self.stdout = Capture(self.limits["output_bytes"])
        self.stderr = Capture(self.limits["output_bytes"])
        self._at_start = Clocks(0.0, 0.0)

    def started(self, clocks: Clocks) -> None:
        """It runs from now on, in a process that has used `clocks` before."""
        self._at_start = clocks
        self.started_at = time.monotonic()
        self.next_check = self.started_at + min(_LONGEST_CHECK_SECONDS, self.limits["cpu_seconds"])

    def check(self, now: float, clocks: Clocks) -> Verdict | None:
        """Compare clocks with limits: the verdict to kill it for, if any. Otherwise plans the next check."""
        cpu_limit, idle_limit = self.limits["cpu_seconds"], self.limits["idle_seconds"]
        cpu, waiting_for_cpu = clocks.cpu - self._at_start.cpu, clocks.waiting - self._at_start.waiting
        wall = now - self.started_at
        cpu_left = cpu_limit - cpu
        idle_left = idle_limit - (wall - cpu - waiting_for_cpu)
        wall_left = self.limits["wall_seconds"] - wall
        if self.output_is_too_long:
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

    def verdict(self, status: int, cpu_s: float, out_of_memory: bool) -> Verdict:
        """How it ended, from the wait status. `out_of_memory`: the kernel has killed for memory while it ran."""
        if self.output_is_too_long:
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
        if code == OUT_OF_MEMORY:
            return self._memory_limit()
        if code == 0:
            return Verdict("ok")
        if code == EXCEPTION and self.stderr.total:
            return Verdict("error")
        return Verdict("exit", f"SystemExit: the code ended with exit code {code}")

    @property
    def output_is_too_long(self) -> bool:
        return max(self.stdout.total, self.stderr.total) > OUTPUT_HARD_LIMIT_BYTES

    def cpu_s(self, total: float) -> float:
        """Of the `total` that its process has used, the CPU seconds since it was started."""
        return max(0.0, total - self._at_start.cpu)

    def _cpu_limit(self) -> Verdict:
        limit = self.limits["cpu_seconds"]
        return Verdict("time_limit", f"TimeLimitExceeded: the code used more than {limit:g} s of CPU time")

    def _memory_limit(self) -> Verdict:
        limit = self.limits["memory_mib"]
        return Verdict("memory_limit", f"MemoryLimitExceeded: the code needed more than {limit} MiB of memory")


def _encode_stdin(text: str) -> bytes:
    """As Python reads it back: bytes that are not UTF-8 stand in `text` as lone surrogates. Others pass as they are."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
