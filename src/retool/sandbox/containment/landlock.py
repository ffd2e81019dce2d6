"""Landlock: the kernel's access control by path (and port, and signal) for processes without privileges.

Source: kernel documentation, userspace-api/landlock. Each ABI version knows more rights than the one before; a
ruleset handles (forbids unless allowed) all rights that the running kernel knows.
"""

import ctypes
import os
from collections.abc import Iterable

from retool.sandbox.containment import linux

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1

_WRITE_FILE = 1 << 1
_READ_FILE = 1 << 2
_READ_DIR = 1 << 3
_CHANGE_DIR = 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 12 | 1 << 13  # remove, make directories, files, links; move
_TRUNCATE = 1 << 14

# Rights by the ABI version that brought them.
_PATH_RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}  # REFER, TRUNCATE, IOCTL_DEV
_NETWORK_RIGHTS = {4: 0b11}  # bind and connect, TCP
_SCOPES = {6: 0b11}  # abstract unix sockets, signals: only to processes of the same domain


class _Ruleset(ctypes.Structure):
    _fields_ = (("paths", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("rights", ctypes.c_uint64), ("directory", ctypes.c_int32))


def abi() -> int:
    """The version of Landlock that this kernel offers; 0 for none."""
    if not linux.IS_LINUX:
        return 0
    try:
        return linux.syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    except OSError:
        return 0


def restrict(readable: Iterable[str], writable: Iterable[str] = (), changeable: Iterable[str] = ()) -> int:
    """Forbid this process and its children to open anything but `readable` (and below) and the files `writable`.

    In the directories `changeable` they may also make, change and remove files. Needs no_new_privs. Paths that do not
    exist are skipped. Returns the ABI version in force. Raises OSError.
    """
    version = abi()
    known = {name: _union(rights, version) for name, rights in _HANDLED.items()}
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = linux.syscall(_CREATE_RULESET, _pointer(_Ruleset(**known)), size, 0)
    try:
        for path in readable:
            _allow(ruleset, path, _READ_FILE | _READ_DIR)
        for path in writable:
            _allow(ruleset, path, _READ_FILE | _WRITE_FILE)
        for path in changeable:
            _allow(ruleset, path, (_READ_FILE | _WRITE_FILE | _READ_DIR | _CHANGE_DIR | _TRUNCATE) & known["paths"])
        linux.syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return version


_HANDLED = {"paths": _PATH_RIGHTS, "network": _NETWORK_RIGHTS, "scopes": _SCOPES}


def _union(rights: dict[int, int], version: int) -> int:
    return sum(bits for since, bits in rights.items() if since <= version)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(path):
            rights &= ~_READ_DIR
        rule = _PathBeneath(rights=rights, directory=target)
        linux.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, _pointer(rule), 0)
    finally:
        os.close(target)


def _pointer(structure: ctypes.Structure) -> ctypes.c_void_p:
    return ctypes.cast(ctypes.pointer(structure), ctypes.c_void_p)
