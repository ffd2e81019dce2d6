"""Settings of the code sandbox."""

from pydantic import Field

from retool.config.base import Section


class Limits(Section):
    """What one execution may use. Time is judged on the CPU clock, so a busy machine makes no honest code fail."""

    cpu_seconds: float = Field(default=5.0, ge=0.05, le=3600)
    """CPU time, summed over threads. Imports of NumPy and SymPy are not charged."""

    idle_seconds: float = Field(default=5.0, ge=0.05, le=3600)
    """Time spent waiting by its own choice (sleeping, a deadlock); waiting for a busy CPU does not count."""

    wall_seconds: float = Field(default=60.0, ge=0.1, le=86400)
    """Last resort. Reaching it means that the machine is overloaded, so the call is run again."""

    memory_mib: int = Field(default=1024, ge=16, le=1 << 20)
    """Address space on top of what the interpreter and its libraries take, in MiB."""

    output_bytes: int = Field(default=16384, ge=64, le=1 << 24)
    """Bytes kept of stdout, and apart of stderr: the first and the last half, with the number of bytes left out."""


class SandboxConfig(Limits):
    """The limits that hold unless a call brings its own, and the size and strength of the sandbox."""

    workers: int | None = Field(default=None, ge=1, le=1024)
    """Executions at the same time. null: as many as half of the cores, so that a learner has room, but at least 2."""

    sessions: int = Field(default=64, ge=1, le=4096)
    """Sessions open at the same time; further ones wait. Each may hold `memory_mib`."""

    session_idle_seconds: float = Field(default=1800.0, ge=0.1, le=86400)
    """A session that rests for longer is ended."""

    allow_weak: bool = False
    """Run even where the system cannot contain the code (no seccomp or no Landlock: old kernels, macOS)."""
