"""The filters, run instruction by instruction in Python, so that both architectures are checked on any machine."""

import subprocess
import sys
from pathlib import Path

import pytest

from retool.sandbox.containment import linux, seccomp, syscalls
from retool.sandbox.containment.seccomp import Instruction

PID = 4242
ALLOWED, REFUSED, UNKNOWN, KILLED, ASKED = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000, 0x7FC00000
FOREIGN_CONVENTION = 0x40000003  # AUDIT_ARCH_I386: int 0x80 on x86-64

machines = pytest.mark.parametrize("machine", ["x86_64", "aarch64"])


def evaluate(program: list[Instruction], number: int, arguments: tuple[int, ...], architecture: int) -> int:
    """What the kernel's BPF machine returns for a call."""
    data = {0: number, 4: architecture} | {16 + 8 * i: a & 0xFFFFFFFF for i, a in enumerate(arguments)}
    accumulator, at = 0, 0
    while True:
        operation, if_true, if_false, operand = program[at]
        at += 1
        if operation == 0x20:
            accumulator = data.get(operand, 0)
        elif operation == 0x54:
            accumulator &= operand
        elif operation == 0x15:
            at += if_true if accumulator == operand else if_false
        elif operation == 0x06:
            return operand
        else:
            raise AssertionError(f"instruction {operation:#x} is not one that the filters use")


def decide(machine: str, call: str | int, *arguments: int, architecture: int | None = None) -> int:
    """What the two filters of a locked-down child decide: the stricter one."""
    number = call if isinstance(call, int) else syscalls.NUMBERS[machine][call]
    if architecture is None:
        architecture = syscalls.AUDIT_ARCHITECTURES[machine]
    programs = seccomp.allowlist(machine), seccomp.lock(machine, PID, asks_to_exit=False)
    verdicts = [evaluate(program, number, arguments, architecture) for program in programs]
    return next((verdict for verdict in verdicts if verdict != ALLOWED), ALLOWED)


@machines
@pytest.mark.parametrize(
    ("call", "arguments", "expected"),
    [
        ("read", (), ALLOWED),
        ("openat", (-100, 0, 0x80000), ALLOWED),
        ("openat", (-100, 0, 0x241), ALLOWED),  # for writing, created, truncated
        ("openat", (-100, 0, 0x200), REFUSED),  # truncated without being opened for writing
        ("mmap", (), ALLOWED),
        ("exit_group", (), ALLOWED),
        ("kill", (PID, 9), ALLOWED),
        ("kill", (PID + 1, 9), REFUSED),
        ("kill", (0, 9), REFUSED),
        ("kill", (-1, 9), REFUSED),
        ("kill", (-PID, 9), REFUSED),
        ("tgkill", (PID, PID, 6), ALLOWED),
        ("tgkill", (PID + 1, PID + 1, 6), REFUSED),
        ("clone", (0x3D0F00,), ALLOWED),  # what a C library passes for a thread
        ("clone", (0x01200011,), REFUSED),  # … and for a fork
        ("clone", (0x3D0F00 | 0x10000000,), REFUSED),  # a thread in a new user namespace
        ("clone3", (), UNKNOWN),
        ("prctl", (1, 0), REFUSED),
        ("seccomp", (), REFUSED),
        ("prlimit64", (0, 7), ALLOWED),
        ("prlimit64", (PID + 1, 7), REFUSED),
        ("socketpair", (1, 1 | 0x80800), ALLOWED),
        ("socketpair", (1, 2), REFUSED),  # datagrams could be addressed to other sockets
        ("socketpair", (16, 1), REFUSED),
        ("ioctl", (0, 0x5401), ALLOWED),
        ("ioctl", (0, 0x5412), REFUSED),  # TIOCSTI
        ("fcntl", (0, 3), ALLOWED),
        ("fcntl", (0, 8), REFUSED),  # F_SETOWN
    ],
)
def test_a_locked_child_may_do_this_and_not_that(machine: str, call: str, arguments: tuple, expected: int) -> None:
    assert decide(machine, call, *arguments) == expected


FORBIDDEN = {
    "x86_64": {
        "connect": 42, "socket": 41, "bind": 49, "execve": 59, "execveat": 322, "vfork": 58, "ptrace": 101,
        "process_vm_readv": 310, "memfd_create": 319, "bpf": 321, "io_uring_setup": 425, "userfaultfd": 323,
        "perf_event_open": 298, "keyctl": 250, "unshare": 272, "setns": 308, "mount": 165, "chroot": 161,
        "open_by_handle_at": 304, "pidfd_open": 434, "pidfd_getfd": 438, "pidfd_send_signal": 424, "tkill": 200,
        "rt_sigqueueinfo": 129, "shmget": 29, "mq_open": 240, "setuid": 105, "personality": 135, "link": 86,
        "truncate": 76, "creat": 85, "chmod": 90, "fchmod": 91, "fchmodat": 268, "chown": 92, "utimensat": 280,
        "setxattr": 188, "mknod": 133, "setpriority": 141, "setresuid": 117, "pivot_root": 155, "umount2": 166,
    },
    "aarch64": {
        "connect": 203, "socket": 198, "bind": 200, "execve": 221, "execveat": 281, "ptrace": 117,
        "process_vm_readv": 270, "memfd_create": 279, "bpf": 280, "io_uring_setup": 425, "userfaultfd": 282,
        "perf_event_open": 241, "keyctl": 219, "unshare": 97, "setns": 268, "mount": 40, "chroot": 51,
        "open_by_handle_at": 265, "pidfd_open": 434, "pidfd_getfd": 438, "pidfd_send_signal": 424, "tkill": 130,
        "rt_sigqueueinfo": 138, "shmget": 194, "mq_open": 180, "setuid": 146, "personality": 92, "linkat": 37,
        "truncate": 45, "fchmod": 52, "fchmodat": 53, "fchownat": 54, "utimensat": 88, "setxattr": 5, "mknodat": 33,
        "setpriority": 140, "setresuid": 147, "pivot_root": 41, "umount2": 39,
    },
}  # fmt: skip


@machines
def test_a_child_asks_before_it_exits_where_somebody_answers(machine: str) -> None:
    program = seccomp.lock(machine, PID, asks_to_exit=True)
    exit_group, read = (syscalls.NUMBERS[machine][call] for call in ("exit_group", "read"))
    assert evaluate(program, exit_group, (0,), 0) == ASKED
    assert evaluate(program, read, (0,), 0) == ALLOWED
    assert [i for i in program if i[3] == ASKED] == [(0x06, 0, 0, ASKED)]  # nothing else is put to anybody


@machines
def test_dangerous_calls_are_refused(machine: str) -> None:
    assert {name for name, number in FORBIDDEN[machine].items() if decide(machine, number) != REFUSED} == set()


@machines
def test_a_call_in_another_convention_ends_the_process(machine: str) -> None:
    assert decide(machine, "read", architecture=FOREIGN_CONVENTION) == KILLED


def test_the_x32_numbers_are_refused() -> None:
    assert decide("x86_64", 0x40000000 | syscalls.NUMBERS["x86_64"]["read"]) == REFUSED


@machines
def test_calls_that_do_not_exist_yet_are_refused(machine: str) -> None:
    assert all(decide(machine, number) == REFUSED for number in range(446, 1000))


@machines
def test_every_named_call_has_a_number_and_every_number_a_name(machine: str) -> None:
    named = syscalls.ALLOWED | syscalls.SETUP | syscalls.UNKNOWN | syscalls.CONDITIONAL.keys()
    assert syscalls.NUMBERS[machine].keys() <= named
    assert named <= syscalls.NUMBERS["x86_64"].keys() | syscalls.NUMBERS["aarch64"].keys()
    assert len(set(syscalls.NUMBERS[machine].values())) == len(syscalls.NUMBERS[machine])


@machines
def test_the_filters_fit_into_the_kernel(machine: str) -> None:
    assert len(seccomp.allowlist(machine)) <= 4096
    assert all(skip <= 255 for _, *skips, _ in seccomp.allowlist(machine) for skip in skips)


@pytest.mark.parametrize(
    ("machine", "header"),
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        ("aarch64", "/usr/include/asm-generic/unistd.h"),
    ],
)
def test_the_numbers_are_those_of_the_kernel_headers(machine: str, header: str) -> None:
    if not Path(header).exists():
        pytest.skip(f"no kernel headers at {header}")
    defined = {}
    for line in Path(header).read_text().splitlines():
        match line.split():
            case ["#define", name, number] if name.startswith(("__NR_", "__NR3264_")) and number.isdigit():
                defined[name.removeprefix("__NR3264_").removeprefix("__NR_")] = int(number)
    defined.setdefault("newfstatat", defined.get("fstatat"))
    known = {name: number for name, number in syscalls.NUMBERS[machine].items() if name in defined}
    assert len(known) > 80
    assert known == {name: defined[name] for name in known}


def test_who_looks_for_a_question_where_there_is_none_does_not_wait() -> None:
    if not linux.IS_LINUX:
        pytest.skip("there are no questions here")
    program = """
from retool.sandbox.containment import linux, seccomp
linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
try:
    listener = seccomp.Filter(linux.MACHINE, seccomp.nothing()).install_with_listener()
except OSError:
    print("the kernel asks nobody")
else:
    print(seccomp.receive_question(listener, linux.MACHINE))
"""
    command = [sys.executable, "-c", program]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert printed in ("None\n", "the kernel asks nobody\n")
