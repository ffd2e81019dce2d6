"""What the supervisor hands to a child, and the few signs that a child gives. The two agree on nothing else."""

import struct
from collections.abc import Callable
from typing import NamedTuple, Self

EXCEPTION = 120
"""Exit code of a child whose code raised, after the traceback was printed to standard error."""

OUT_OF_MEMORY = 121
"""Exit code of a child whose code raised MemoryError."""

READY = b"R"
"""Written to the standard output of a child that is locked down, before it reads anything."""

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
