"""What an execution returned, and how the model is told."""

from dataclasses import dataclass

from retool.types import CallStatus

_FAILED_IN_THE_CODE = (CallStatus.ERROR, CallStatus.EXIT, CallStatus.SIGNAL, CallStatus.MEMORY_LIMIT)


@dataclass(frozen=True, slots=True)
class Result:
    """How an execution ended, what it printed and what it used.

    `stdout` and `stderr` are UTF-8 text with other bytes as `\\xNN`; of a longer stream than `output_bytes` the middle
    is left out. The traceback of an uncaught exception is the end of `stderr`. `queue_s` is the time before the start,
    `wall_s` that from start to end, `cpu_s` the CPU time; `peak_bytes` is the most memory resident at once, the
    interpreter's own share included. `reason` says in a sentence why it ended where the output alone does not.
    `exit_code` is negative for a signal and None where nothing was run.
    """

    status: CallStatus
    stdout: str = ""
    stderr: str = ""
    cpu_s: float = 0.0
    wall_s: float = 0.0
    queue_s: float = 0.0
    peak_bytes: int = 0
    reason: str = ""
    exit_code: int | None = None

    @property
    def text(self) -> str:
        """What the model is told: stdout, after a failure stderr (which ends with the traceback), then the reason.

        So only code that ended well and printed nothing is answered by an empty string.
        """
        parts = [self.stdout, self.stderr if self.status in _FAILED_IN_THE_CODE else "", self.reason]
        return "\n".join(part.rstrip("\n") for part in parts if part.strip("\n"))
