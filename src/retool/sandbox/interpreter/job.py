"""What the supervisor hands to a child, and the few signs that a child gives. The two agree on nothing else."""

import struct
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple, Self

EXCEPTION = 120
"""Exit code of a child whose code raised, after the traceback was printed to standard error."""

OUT_OF_MEMORY = 121
"""Exit code of a child whose code raised MemoryError."""

READY = b"R"
"""How an interpreter of its own (by its standard output) and a session (by its control socket) say that they wait."""

PREPARE, START = b"P", b"S"
"""What a process for one execution reads first: that there is time to prepare, or that there is none. A job follows."""


class BlockReport(Enum):
    """What the processes of a session tell about a block, each as one packet of the control socket."""

    STARTED = b"S"
    """The sender is the fork that runs it."""
    DONE = b"D"
    """It went well; the sender is the one that ran it, and holds the state from now on."""
    ENDED = b"E"
    """The fork that ran it has ended; a `End` follows. The sender still holds the state."""


_END = struct.Struct("!IdQ")


class End(NamedTuple):
    """How a process has ended, as the kernel told its parent."""

    status: int
    """The wait status."""
    cpu_s: float
    peak_bytes: int

    def pack(self) -> bytes:
        return BlockReport.ENDED.value + _END.pack(*self)

    @classmethod
    def unpack(cls, report: bytes) -> Self:
        """The end that a session's own processes report; one that makes no sense counts as a failure."""
        body = report[1:]
        return cls(*_END.unpack(body)) if len(body) == _END.size else cls(1 << 8, 0.0, 0)


_FORMAT = struct.Struct("!IQII?")


class Terms(NamedTuple):
    """What precedes the code of an execution in a child's standard input; the code's own standard input follows it."""

    code_bytes: int
    seed: int
    cpu_seconds: int
    memory_mib: int
    echo: bool
    """Whether the value of a last expression is printed, as in a notebook."""

    def encode(self) -> bytes:
        return _FORMAT.pack(*self)

    @classmethod
    def read(cls, read_exactly: Callable[[int], bytes]) -> Self:
        return cls(*_FORMAT.unpack(read_exactly(_FORMAT.size)))


def encode_code(code: str) -> bytes:
    return code.encode("utf-8", "surrogatepass")


def decode_code(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")
