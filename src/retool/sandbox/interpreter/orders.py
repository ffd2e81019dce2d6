"""What the supervisor orders from a zygote, and what the zygote reports, each in a fixed number of bytes.

So small and plain because a zygote that does little between two forks has little memory to copy for each of them.
Descriptors travel beside the bytes: with an order the streams of the process to fork, with a report the process itself.
"""

import socket
import struct
from typing import NamedTuple, Self

ORDER = struct.Struct("=?II")
"""Whether it is for a session, the number of the process that is ordered, and the slot that it is to have."""

_REPORT = struct.Struct("=BIiiQd")
_DESCRIPTOR = struct.Struct("=i")

FIRST, READY, FORKED, LOCKED, FAILED, EXITED = range(6)


class Report(NamedTuple):
    """`kind` says what it is about.

    FIRST: the process `pid` is to be watched from now on. READY: orders are welcome; what is in force follows, a JSON
    object of `value` bytes. FORKED: order `number` is the process `pid`; `value` descriptors of it come along. LOCKED:
    that process is locked down and waits for its job; it will ask to exit on the descriptor that comes along, if
    `value` is 1. FAILED: order `number` was not possible, error number `value`. EXITED: the process `pid` ended with
    wait status `value`, the most memory it has held, in bytes, and the CPU seconds it has used.
    """

    kind: int
    number: int = 0
    pid: int = 0
    value: int = 0
    peak_bytes: int = 0
    cpu_s: float = 0.0

    def pack(self) -> bytes:
        return _REPORT.pack(*self)

    @classmethod
    def take(cls, buffer: bytearray) -> Self | None:
        """Remove the next report from the start of `buffer`; None if it is not complete yet."""
        if len(buffer) < _REPORT.size:
            return None
        report = cls(*_REPORT.unpack_from(buffer))
        del buffer[: _REPORT.size]
        return report


def send(control: socket.socket, data: bytes, descriptor: int | None = None) -> None:
    """Tell the supervisor. Raises BrokenPipeError or ConnectionResetError when that is gone."""
    ancillary = [] if descriptor is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _DESCRIPTOR.pack(descriptor))]
    control.sendmsg([data], ancillary)
