"""Builds the seccomp filters, programs for the kernel's classic BPF machine, from the tables in `syscalls`.

Two filters are stacked, because installing a short one takes a child 0.1 ms and a long one 0.4 ms. The zygote installs
the list of everything allowed, set-up calls included, and its children inherit it; each child then takes the set-up
calls away. A call is allowed when both filters allow it.
"""

import ctypes
import os
import struct

from retool.sandbox import linux, syscalls
from retool.sandbox.syscalls import Argument

_LOAD, _AND, _JUMP_EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38

# struct seccomp_data {int nr; __u32 arch; __u64 instruction_pointer; __u64 args[6];}, little-endian
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16

_INSTRUCTION, _OPERAND, _OPERAND_AT = struct.Struct("=HBBI"), struct.Struct("=I"), 4
_ANY_PID = 0x7EDCBA98  # larger than any pid, and no other operand of the filter

Instruction = tuple[int, int, int, int]
"""Operation, instructions to skip if true, instructions to skip if false, operand."""


def allowlist(machine: str) -> list[Instruction]:
    """The filter of a zygote: calls in the native convention that `syscalls` names, everything else EPERM."""
    numbers = syscalls.NUMBERS[machine]
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_EQUAL, 1, 0, syscalls.AUDIT_ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    for name, number in numbers.items():
        if name in syscalls.CONDITIONAL:
            program += _if_call(number, _conditions(syscalls.CONDITIONAL[name]))
        elif name in syscalls.UNKNOWN:
            program += _if_call(number, [(_RETURN, 0, 0, _ERRNO | _ENOSYS)])
        elif name in syscalls.ALLOWED | syscalls.SETUP:
            program += _if_call(number, [(_RETURN, 0, 0, _ALLOW)])
    return [*program, (_RETURN, 0, 0, _ERRNO | _EPERM)]


def lock(machine: str, pid: int) -> list[Instruction]:
    """The filter of the child `pid`: what was needed for the set-up only is refused from now on."""
    numbers = syscalls.NUMBERS[machine]
    kept = syscalls.of_locked_child(pid)
    program = [(_LOAD, 0, 0, _NUMBER_AT)]
    for name in sorted(syscalls.SETUP & numbers.keys()):
        refused = [(_RETURN, 0, 0, _ERRNO | _EPERM)]
        program += _if_call(numbers[name], _conditions(kept[name]) if name in kept else refused)
    return [*program, (_RETURN, 0, 0, _ALLOW)]


def assemble(program: list[Instruction]) -> bytes:
    """`program` as the kernel reads it: `struct sock_filter` by `struct sock_filter`."""
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)


class Filter:
    """An assembled program, in memory where the kernel can read it. Making one takes longer than installing it."""

    def __init__(self, program: list[Instruction]) -> None:
        code = assemble(program)
        self._instructions = ctypes.create_string_buffer(code, len(code))
        self._header = _Program(len(program), ctypes.addressof(self._instructions))
        self._arguments = linux.PR_SET_SECCOMP, linux.SECCOMP_MODE_FILTER, ctypes.addressof(self._header)

    def install(self) -> None:
        """Put it in force for this process and its future children. Needs no_new_privs. Raises OSError."""
        linux.prctl(*self._arguments)


class Lock(Filter):
    """The filter `lock`, prepared before the pid of the child is known."""

    def __init__(self, machine: str) -> None:
        program = lock(machine, _ANY_PID)
        super().__init__(program)
        self._pids_at = [
            index * _INSTRUCTION.size + _OPERAND_AT
            for index, (*_, operand) in enumerate(program)
            if operand == _ANY_PID
        ]

    def install(self) -> None:
        pid = os.getpid()
        for position in self._pids_at:
            _OPERAND.pack_into(self._instructions, position, pid)
        super().install()


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def _if_call(number: int, then: list[Instruction]) -> list[Instruction]:
    """`then` (which must return) if the loaded call number is `number`."""
    return [(_JUMP_EQUAL, 0, len(then), number), *then]


def _conditions(arguments: tuple[Argument, ...]) -> list[Instruction]:
    """Allow if all conditions hold, else EPERM."""
    block: list[Instruction] = []
    for index, values, mask in arguments:
        block.append((_LOAD, 0, 0, _ARGUMENTS_AT + 8 * index))
        if mask != 0xFFFFFFFF:
            block.append((_AND, 0, 0, mask))
        for position, value in enumerate(values):
            to_next_condition = len(values) - position
            block.append((_JUMP_EQUAL, to_next_condition, 0, value))
        block.append((_RETURN, 0, 0, _ERRNO | _EPERM))
    return [*block, (_RETURN, 0, 0, _ALLOW)]
