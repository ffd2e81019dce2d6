"""Builds the seccomp filters, programs for the kernel's classic BPF machine, from the tables in `syscalls`.

Two filters are stacked, because installing a short one takes a child 0.1 ms and a long one 0.4 ms. The zygote installs
the list of everything allowed, set-up calls included, and its children inherit it; each child then takes the set-up
calls away. A call is allowed when both filters allow it.
"""

import ctypes
import fcntl
import select
import struct
from typing import NamedTuple

from retool.sandbox.containment import linux, syscalls
from retool.sandbox.containment.syscalls import Argument

_LOAD, _AND, _JUMP_EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO, _ASK_SUPERVISOR = 0x7FFF0000, 0x80000000, 0x00050000, 0x7FC00000
_EPERM, _ENOSYS = 1, 38

# struct seccomp_data {int nr; __u32 arch; __u64 instruction_pointer; __u64 args[6];}, little-endian
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16

# linux/seccomp.h: struct seccomp_notif and seccomp_notif_resp, and the calls that exchange them
_SET_MODE_FILTER, _NEW_LISTENER, _CONTINUE = 1, 1 << 3, 1
_NOTIFICATION, _ANSWER = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_TRIES = 100

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


def lock(machine: str, pid: int, asks_to_exit: bool) -> list[Instruction]:
    """The filter of the child `pid`: what was needed for the set-up only is refused from now on.

    With `asks_to_exit` the end of the process is put to the supervisor, which thus hears of it before the kernel has
    taken the process's memory apart.
    """
    numbers = syscalls.NUMBERS[machine]
    kept = syscalls.of_locked_child(pid)
    program = [(_LOAD, 0, 0, _NUMBER_AT)]
    for name in sorted(syscalls.SETUP & numbers.keys()):
        refused = [(_RETURN, 0, 0, _ERRNO | _EPERM)]
        program += _if_call(numbers[name], _conditions(kept[name]) if name in kept else refused)
    if asks_to_exit:
        program += _if_call(numbers["exit_group"], [(_RETURN, 0, 0, _ASK_SUPERVISOR)])
    return [*program, (_RETURN, 0, 0, _ALLOW)]


def session_lock(machine: str) -> list[Instruction]:
    """The filter of a session's processes: as `lock`, but each fork and each signal is put to the supervisor."""
    numbers = syscalls.NUMBERS[machine]
    program = [(_LOAD, 0, 0, _NUMBER_AT)]
    for name in sorted(syscalls.SETUP & numbers.keys()):
        if name == "clone":
            answer = _conditions(syscalls.THREAD, otherwise=_ASK_SUPERVISOR)
        else:
            answer = [(_RETURN, 0, 0, _ASK_SUPERVISOR if name in syscalls.ASKED else _ERRNO | _EPERM)]
        program += _if_call(numbers[name], answer)
    return [*program, (_RETURN, 0, 0, _ALLOW)]


def nothing() -> list[Instruction]:
    """A filter that allows every call."""
    return [(_RETURN, 0, 0, _ALLOW)]


def assemble(program: list[Instruction]) -> bytes:
    """`program` as the kernel reads it: `struct sock_filter` by `struct sock_filter`."""
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)


class Filter:
    """An assembled program, in memory where the kernel can read it. Making one takes longer than installing it."""

    def __init__(self, machine: str, program: list[Instruction]) -> None:
        code = assemble(program)
        self._instructions = ctypes.create_string_buffer(code, len(code))
        self._header = _Program(len(program), ctypes.addressof(self._instructions))
        at = ctypes.addressof(self._header)
        self._arguments = linux.PR_SET_SECCOMP, linux.SECCOMP_MODE_FILTER, at
        number = syscalls.NUMBERS[machine]["seccomp"]
        self._install_with_listener = linux.SystemCall(number, _SET_MODE_FILTER, _NEW_LISTENER, ctypes.c_void_p(at))

    def install(self) -> None:
        """Put it in force for this process and its future children. Needs no_new_privs. Raises OSError."""
        linux.prctl(*self._arguments)

    def install_with_listener(self) -> int:
        """The same; returns the descriptor on which the questions arrive. There can be one such filter in a process."""
        return self._install_with_listener.make()


class Question(NamedTuple):
    """A call of a process that waits for an answer. `thread` is its number in the place of who receives it."""

    id: int
    thread: int
    call: str
    arguments: tuple[int, ...]


def receive_question(listener: int, machine: str) -> Question | None:
    """The next question; None if there is none, say because who asked it has died meanwhile. Does not wait.

    The kernel itself would (before Linux 6.6 for ever, if all who could ask are gone), so it is asked for a question
    only when there is one. A signal takes a question back; after a handler the call fails with EINTR or asks again.
    """
    notification, poll = bytearray(_NOTIFICATION.size), select.poll()
    poll.register(listener, select.POLLIN)
    for _ in range(_TRIES):
        if not any(event & select.POLLIN for _, event in poll.poll(0)):
            return None
        try:
            fcntl.ioctl(listener, _RECEIVE, notification)
        except FileNotFoundError:
            continue
        identity, thread, _, number, _, _, *arguments = _NOTIFICATION.unpack(notification)
        return Question(identity, thread, syscalls.NAMES[machine][number], tuple(arguments))
    return None


def answer_question(listener: int, question: Question, allow: bool) -> None:
    """Let the call go on as if there were no filter, or fail with EPERM. The arguments that were judged are numbers in
    registers, so they cannot be exchanged in between."""
    error, flags = (0, _CONTINUE) if allow else (-_EPERM, 0)
    try:
        fcntl.ioctl(listener, _SEND, _ANSWER.pack(question.id, 0, error, flags))
    except FileNotFoundError:
        return  # who asked has died meanwhile


class Lock(Filter):
    """The filter `lock`, prepared before the pid of the child is known."""

    def __init__(self, machine: str, asks_to_exit: bool) -> None:
        program = lock(machine, _ANY_PID, asks_to_exit)
        super().__init__(machine, program)
        self._asks_to_exit = asks_to_exit
        self._pids_at = [
            index * _INSTRUCTION.size + _OPERAND_AT
            for index, (*_, operand) in enumerate(program)
            if operand == _ANY_PID
        ]

    def install_for(self, pid: int) -> int | None:
        """Put it in force for this process, `pid`; returns the descriptor on which it will ask to exit, if it will."""
        for position in self._pids_at:
            _OPERAND.pack_into(self._instructions, position, pid)
        return self.install_with_listener() if self._asks_to_exit else self.install()


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def _if_call(number: int, then: list[Instruction]) -> list[Instruction]:
    """`then` (which must return) if the loaded call number is `number`."""
    return [(_JUMP_EQUAL, 0, len(then), number), *then]


def _conditions(arguments: tuple[Argument, ...], otherwise: int = _ERRNO | _EPERM) -> list[Instruction]:
    """Allow if all conditions hold, else return `otherwise`."""
    block: list[Instruction] = []
    for index, values, mask in arguments:
        block.append((_LOAD, 0, 0, _ARGUMENTS_AT + 8 * index))
        if mask != 0xFFFFFFFF:
            block.append((_AND, 0, 0, mask))
        for position, value in enumerate(values):
            to_next_condition = len(values) - position
            block.append((_JUMP_EQUAL, to_next_condition, 0, value))
        block.append((_RETURN, 0, 0, otherwise))
    return [*block, (_RETURN, 0, 0, _ALLOW)]
