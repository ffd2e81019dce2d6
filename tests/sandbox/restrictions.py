"""Takes away from this process, and so from the sandbox that it becomes, what some systems do not offer.

Run in the supervisor's process, before anything else: each function emulates a place where the sandbox has to live.
"""

import ctypes
import os
import resource

from retool.sandbox.containment import linux, seccomp
from retool.sandbox.containment.syscalls import AUDIT_ARCHITECTURES, NUMBERS

ORDINARY_UID = 54321

_LOAD, _AND, _JUMP_EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EPERM, _EINVAL, _ENOSYS = 1, 22, 38
_NEW_LISTENER = 1 << 3  # a flag of seccomp(2)
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENT_AT = 0, 4, 16
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_LAST_CAPABILITY = 40
_CAP_SETFCAP = 31

# Docker's default: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW,
# SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP.
_CAPABILITIES_OF_A_CONTAINER = (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31)

# The calls that Docker's default filter refuses without further capabilities: numbers of x86-64 and of arm64.
# Source: moby, profiles/seccomp/default.json.
_REFUSED_IN_A_CONTAINER = {
    "acct": (163, 89), "add_key": (248, 217), "bpf": (321, 280), "clock_adjtime": (305, 266),
    "clock_settime": (227, 112), "delete_module": (176, 106), "fanotify_init": (300, 262), "finit_module": (313, 273),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fsopen": (430, 430), "fspick": (433, 433),
    "get_mempolicy": (239, 236), "init_module": (175, 105), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "io_uring_setup": (425, 425), "kcmp": (312, 272), "kexec_file_load": (320, 294),
    "kexec_load": (246, 104), "keyctl": (250, 219), "lookup_dcookie": (212, 18), "mbind": (237, 235),
    "mount": (165, 40), "mount_setattr": (442, 442), "move_mount": (429, 429), "move_pages": (279, 239),
    "open_by_handle_at": (304, 265), "open_tree": (428, 428), "perf_event_open": (298, 241), "pivot_root": (155, 41),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "quotactl": (179, 60), "reboot": (169, 142),
    "request_key": (249, 218), "set_mempolicy": (238, 237), "setdomainname": (171, 162), "sethostname": (170, 161),
    "setns": (308, 268), "settimeofday": (164, 170), "swapoff": (168, 225), "swapon": (167, 224),
    "syslog": (103, 116), "umount2": (166, 39), "unshare": (272, 97), "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}  # fmt: skip
_CLONE, _PERSONALITY, _CLONE3 = (56, 220), (135, 92), (435, 435)
_NEW_NAMESPACES = 0x7E020000
_PERSONALITIES_OF_A_CONTAINER = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
_LANDLOCK = (444, 445, 446)


def nothing() -> None:
    """All that this system offers."""


def container() -> None:
    """Docker's default capabilities and filter of system calls."""
    at = _index()
    program = _of_native_calls()
    for numbers in _REFUSED_IN_A_CONTAINER.values():
        program += _answer(numbers[at], _EPERM)
    program += _answer(_CLONE3[at], _ENOSYS)
    program += [
        (_JUMP_EQUAL, 0, 4, _CLONE[at]),
        (_LOAD, 0, 0, _ARGUMENT_AT),
        (_AND, 0, 0, _NEW_NAMESPACES),
        (_JUMP_EQUAL, 1, 0, 0),
        (_RETURN, 0, 0, _ERRNO | _EPERM),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_EQUAL, 0, len(_PERSONALITIES_OF_A_CONTAINER) + 2, _PERSONALITY[at]),
        (_LOAD, 0, 0, _ARGUMENT_AT),
    ]
    for place, value in enumerate(_PERSONALITIES_OF_A_CONTAINER):
        program.append((_JUMP_EQUAL, len(_PERSONALITIES_OF_A_CONTAINER) - place, 0, value))
    program += [(_RETURN, 0, 0, _ERRNO | _EPERM), (_RETURN, 0, 0, _ALLOW)]
    _install(program)
    _keep_capabilities(*_CAPABILITIES_OF_A_CONTAINER)


def user_namespace() -> None:
    """No capability but the one without which root may not be mapped into a user namespace."""
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    _keep_capabilities(_CAP_SETFCAP)


def without_landlock() -> None:
    """A kernel that does not know Landlock."""
    program = _of_native_calls()
    for number in _LANDLOCK:
        program += _answer(number, _ENOSYS)
    _install([*program, (_RETURN, 0, 0, _ALLOW)])


def without_questions() -> None:
    """A kernel that asks nobody about the calls of others (before Linux 5.5, or another one in its guise)."""
    _install(
        [
            *_of_native_calls(),
            (_JUMP_EQUAL, 0, 4, NUMBERS[linux.MACHINE]["seccomp"]),
            (_LOAD, 0, 0, _ARGUMENT_AT + 8),
            (_AND, 0, 0, _NEW_LISTENER),
            (_JUMP_EQUAL, 1, 0, 0),
            (_RETURN, 0, 0, _ERRNO | _EINVAL),
            (_RETURN, 0, 0, _ALLOW),
        ]
    )


def few_open_files() -> None:
    """A hard limit as in some containers, only lower."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))


def user_namespace_without_landlock() -> None:
    without_landlock()
    user_namespace()


def container_without_landlock() -> None:
    without_landlock()
    container()


def ordinary_user() -> None:
    """A user who is not root; the caller is."""
    os.setgroups(())
    os.setresgid(ORDINARY_UID, ORDINARY_UID, ORDINARY_UID)
    os.setresuid(ORDINARY_UID, ORDINARY_UID, ORDINARY_UID)


def _index() -> int:
    return ("x86_64", "aarch64").index(linux.MACHINE)


def _of_native_calls() -> list[seccomp.Instruction]:
    """Loads the number of a call, and allows those in other conventions."""
    return [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_EQUAL, 1, 0, AUDIT_ARCHITECTURES[linux.MACHINE]),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]


def _answer(number: int, error: int) -> list[seccomp.Instruction]:
    return [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | error)]


def _install(program: list[seccomp.Instruction]) -> None:
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    seccomp.Filter(linux.MACHINE, program).install()


def _keep_capabilities(*kept: int) -> None:
    """Also for programs that this process starts; an ordinary user has none to begin with."""
    if os.getuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    offered = [number for number in range(_LAST_CAPABILITY + 1) if libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1]
    for capability in set(offered) - set(kept):
        linux.prctl(_PR_CAPBSET_DROP, capability)
    linux.keep_capabilities(*set(offered).intersection(kept))
