"""The `POST /run_code` of SandboxFusion, the sandbox that verl and others speak to: its requests and its responses.

Schema: bytedance/SandboxFusion, `sandbox/server/sandbox_api.py` and `sandbox/runners/types.py`. There a program ran
when its process could be started: one that raised is `Failed` with a `Finished` run and return code 1. `SandboxError`
is never the code's fault, and clients retry it.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from retool.config.sandbox import Limits
from retool.sandbox.result import Result
from retool.types import CallStatus

_OUTPUT_BYTES = 1 << 20
"""What SandboxFusion reads of a stream. Its clients compare whole outputs, so the limit made for models is too low."""

_LIMIT_EXCEEDED = (CallStatus.TIME_LIMIT, CallStatus.MEMORY_LIMIT, CallStatus.OUTPUT_LIMIT)
_SANDBOX_FAILED = (CallStatus.SANDBOX_ERROR, CallStatus.OVERLOAD)


class RunCode(BaseModel):
    """A request. Numbers may come as text and unknown fields are ignored, as SandboxFusion does both."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    code: str
    language: str
    compile_timeout: float = 10.0
    """Without meaning for Python, which is not compiled."""
    run_timeout: float = Field(default=10.0, ge=0.05, le=3600)
    """Seconds, there of wall time; here of CPU time and, apart, of waiting."""
    memory_limit_MB: int = -1
    """0 and less: the default."""
    stdin: str | None = None
    files: dict[str, str | None] = {}
    fetch_files: list[str] = []

    @property
    def refusal(self) -> str | None:
        """Why the request cannot be served by this sandbox, in a sentence; None if it can."""
        if self.language != "python":
            return f"this sandbox runs language 'python' only, found {self.language!r}"
        if self.fetch_files or any(content is not None for content in self.files.values()):
            return "this sandbox keeps no files: put the data into `code` or `stdin`, and print what you want to read"
        return None

    def limits(self, default: Limits) -> Limits:
        """The limits asked for, and `default` for the rest."""
        memory_mib = min(max(self.memory_limit_MB, 16), 1 << 20) if self.memory_limit_MB > 0 else default.memory_mib
        return Limits(
            cpu_seconds=self.run_timeout,
            idle_seconds=self.run_timeout,
            wall_seconds=max(default.wall_seconds, 4 * self.run_timeout),
            memory_mib=memory_mib,
            output_bytes=max(default.output_bytes, _OUTPUT_BYTES),
        )


def answer(result: Result) -> tuple[int, dict[str, Any]]:
    """HTTP status and response for an execution: 504, which verl's client retries, where the sandbox failed."""
    if result.status in _SANDBOX_FAILED:
        return 504, sandbox_error(result.reason)
    timed_out = result.status is CallStatus.TIME_LIMIT
    reason = result.reason if result.status in _LIMIT_EXCEEDED else ""
    run_result = {
        "status": "TimeLimitExceeded" if timed_out else "Finished",
        "execution_time": result.wall_s,
        "return_code": None if timed_out else result.exit_code,
        "stdout": result.stdout,
        "stderr": _with_line(result.stderr, reason),
    }
    return 200, _response("Success" if result.status is CallStatus.OK else "Failed", run_result=run_result)


def sandbox_error(message: str) -> dict[str, Any]:
    """The response for code that was not run, or whose run says nothing about it."""
    return _response("SandboxError", message=message)


def invalid(error: ValidationError) -> dict[str, Any]:
    """The body of status 422, as FastAPI, in which SandboxFusion is written, puts it."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    return {"detail": [detail | {"loc": ["body", *detail["loc"]]} for detail in details]}


def _response(status: str, message: str = "", run_result: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "status": status,
        "message": message,
        "compile_result": None,
        "run_result": run_result,
        "executor_pod_name": None,
        "files": {},
    }


def _with_line(text: str, line: str) -> str:
    if not line:
        return text
    return f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{line}\n"
