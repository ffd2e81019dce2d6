"""Code that reaches for other processes, files, the network and the kernel: refused, wherever the sandbox lives."""

import os

import pytest
from abuse import SYSTEM_CALL, Abuse, perpetrate, refused

from retool.sandbox import Sandbox

PROCESSES = {
    "fork": refused("attempt(os.fork)"),
    "fork with the pty module": refused("import pty; attempt(pty.fork)"),
    "subprocess": refused("import subprocess; attempt(subprocess.run, ['true'])"),
    "shell": refused("import subprocess; attempt(lambda: subprocess.check_output('echo hello', shell=True))"),
    "system": Abuse("print(os.waitstatus_to_exitcode(os.system('true')))", prints="127"),
    "posix_spawn": refused("attempt(os.posix_spawn, '/bin/true', ['true'], {})"),
    "exec": refused("attempt(os.execv, '/bin/true', ['true'])"),
    "exec of a descriptor": refused("f = os.open(os.__file__, os.O_RDONLY); attempt(os.execve, f, ['true'], {})"),
    "multiprocessing": refused("import multiprocessing; attempt(lambda: multiprocessing.Pool(1))"),
    "process pool": refused(
        "from concurrent.futures import ProcessPoolExecutor as P; attempt(lambda: P(1).submit(print).result())"
    ),
    "session of its own": refused("attempt(os.setsid)"),
    "signal parent": refused("attempt(os.kill, os.getppid(), 0)"),
    "signal everybody": refused("attempt(os.kill, -1, 0)"),
    "signal the group": refused("attempt(os.killpg, 0, 0)"),
    "signal process 1": refused("attempt(os.kill, 1, 0)"),
    "signal whoever there is": refused("for pid in others(): attempt(os.kill, pid, 0)"),
    "signal a thread of another": refused(
        f"{SYSTEM_CALL}\nimport platform\nnumber = 234 if platform.machine() == 'x86_64' else 131\n"
        "for pid in others(): attempt(system_call, number, pid, pid, 0)"
    ),
    "signals through a pipe": refused(
        "import fcntl\nr, w = os.pipe()\nattempt(fcntl.fcntl, r, fcntl.F_SETOWN, os.getppid())"
    ),
    "open another process": refused("for pid in others(): attempt(os.pidfd_open, pid)"),
    "limits of another process": refused(
        "import resource\nfor pid in others(): attempt(resource.prlimit, pid, resource.RLIMIT_CPU)"
    ),
    "raise own limits": refused("import resource; attempt(resource.setrlimit, resource.RLIMIT_CPU, (9999, 9999))"),
    "lift own limits": refused("import resource; attempt(resource.setrlimit, resource.RLIMIT_AS, (-1, -1))"),
    "become root": refused("attempt(os.setuid, 0); attempt(os.setresuid, 0, 0, 0)"),
    "become a neighbour": refused("attempt(os.setresuid, *[os.getuid() + 1] * 3)"),
    "become a group": refused("attempt(os.setgroups, [0]); attempt(os.setgid, 0)"),
    "be nicer to itself": refused("attempt(os.nice, -5); attempt(os.setpriority, os.PRIO_PROCESS, 0, -5)"),
    "priority of the parent": refused("attempt(os.setpriority, os.PRIO_PROCESS, os.getppid(), 0)"),
    "other cores": refused("attempt(os.sched_setaffinity, 0, {0}); attempt(os.sched_setscheduler, 0, 0, None)"),
}

NETWORK = {
    "tcp": refused("import socket; attempt(socket.create_connection, ('127.0.0.1', 22), 1)"),
    "udp": refused("import socket; attempt(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)"),
    "ipv6": refused("import socket; attempt(socket.socket, socket.AF_INET6)"),
    "unix": refused("import socket; attempt(socket.socket, socket.AF_UNIX)"),
    "netlink": refused("import socket; attempt(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW)"),
    "packets": refused("import socket; attempt(socket.socket, socket.AF_PACKET, socket.SOCK_RAW)"),
    "raw": refused("import socket; attempt(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1)"),
    "datagram pair": refused("import socket; attempt(socket.socketpair, socket.AF_UNIX, socket.SOCK_DGRAM)"),
    "name lookup": refused("import socket; attempt(socket.getaddrinfo, 'example.org', 80)"),
    "web": refused("import urllib.request; attempt(urllib.request.urlopen, 'http://127.0.0.1:80')"),
    "listen": refused("import socketserver; attempt(socketserver.TCPServer, ('127.0.0.1', 0), print)"),
    "name of the host": refused("import socket; attempt(socket.sethostname, 'abuse')"),
}

FILES = {
    "read accounts": refused("attempt(lambda: open('/etc/passwd').read())"),
    "read keys of the host": refused("attempt(lambda: open('/etc/shadow').read())"),
    "read this file": refused(f"attempt(lambda: open({os.path.abspath(__file__)!r}).read())"),
    "read parent's environment": refused("attempt(lambda: open(f'/proc/{os.getppid()}/environ').read())"),
    "read own environment": refused("attempt(lambda: open('/proc/self/environ').read())"),
    "read parent's command line": refused("attempt(lambda: open(f'/proc/{os.getppid()}/cmdline').read())"),
    "read parent's memory": refused("attempt(open, f'/proc/{os.getppid()}/mem', 'rb')"),
    "write own memory": refused("attempt(open, '/proc/self/mem', 'r+b')"),
    "read the kernel's log": refused("attempt(open, '/dev/kmsg'); attempt(open, '/proc/kcore')"),
    "list the root": refused("attempt(look_for, ['proc', 'sys', 'boot', 'run', 'var'], '/')"),
    "list the home": refused("attempt(look_for, ['.bashrc', '.profile', '.ssh', '.cache'], '/root')"),
    "list the processes": refused("attempt(os.listdir, '/proc')"),
    "list the devices": refused("attempt(look_for, ['shm', 'pts', 'kmsg', 'vda', 'sda'], '/dev')"),
    "a disk": refused("for name in ('vda', 'sda', 'nvme0n1', 'mem'): attempt(open, f'/dev/{name}', 'rb')"),
    "a terminal": refused("attempt(open, '/dev/tty', 'w'); attempt(os.openpty)"),
    "write a temporary file": refused("attempt(open, f'/tmp/{MARK}', 'w'); attempt(open, f'/var/tmp/{MARK}', 'w')"),
    "write shared memory": refused("attempt(open, f'/dev/shm/{MARK}', 'w')"),
    "named shared memory": refused(
        "from multiprocessing import shared_memory as m; attempt(m.SharedMemory, MARK, True, 9)"
    ),
    "semaphore": refused("import _multiprocessing as m; attempt(m.SemLock, 1, 1, 1, MARK, False)"),
    "write into the libraries": refused("attempt(open, os.path.join(os.path.dirname(os.__file__), MARK), 'w')"),
    "write above its folder": refused("attempt(open, f'../{MARK}', 'w')"),
    "write into the root": refused("attempt(open, f'/{MARK}', 'w')"),
    "a file without a name": refused(
        "for f in ('/', '/tmp', '/dev/shm'): attempt(os.open, f, os.O_TMPFILE | os.O_RDWR)"
    ),
    "change the mode of a library": refused("attempt(os.chmod, os.__file__, 0o777)"),
    "change the mode of an open file": refused("attempt(os.chmod, os.open(os.__file__, os.O_RDONLY), 0o777)"),
    "change the owner": refused("attempt(os.chown, os.__file__, os.getuid(), -1)"),
    "touch a library": refused("attempt(os.utime, os.__file__)"),
    "truncate a library by its path": refused("attempt(os.truncate, os.__file__, 0)"),
    "truncate a library while reading": refused("attempt(os.open, os.__file__, os.O_RDONLY | os.O_TRUNC)"),
    "append to a library": refused("attempt(open, os.__file__, 'a')"),
    "map a library for writing": refused(
        "import mmap; f = os.open(os.__file__, os.O_RDONLY); attempt(mmap.mmap, f, 9, mmap.MAP_SHARED, mmap.PROT_WRITE)"
    ),
    "remove a library": refused("attempt(os.unlink, os.__file__)"),
    "rename a library": refused("attempt(os.rename, os.__file__, os.__file__ + MARK)"),
    "attributes of a library": refused("attempt(os.setxattr, os.__file__, 'user.abuse', b'x')"),
    "make a directory": refused("attempt(os.mkdir, f'/tmp/{MARK}')"),
    "make a device": refused("attempt(os.mknod, 'device', 0o20666, 0x103)"),
    "make a named pipe": refused("attempt(os.mkfifo, 'pipe')"),
    "read through a symbolic link": refused(
        "attempt(lambda: os.symlink('/etc/passwd', 'link') or open('link').read())"
    ),
    "read through a hard link": refused("attempt(os.link, '/etc/passwd', 'link'); attempt(os.link, os.__file__, 'x')"),
    "a symbolic link elsewhere": refused("attempt(os.symlink, '/etc/passwd', f'/tmp/{MARK}')"),
    "climb": refused("attempt(open, '../' * 40 + 'etc/passwd'); os.chdir('/'); attempt(open, 'etc/passwd')"),
    "change root": refused("attempt(os.chroot, '/')"),
    "push input into a terminal": refused("import fcntl, termios; attempt(fcntl.ioctl, 1, termios.TIOCSTI, b'x')"),
    "inherited descriptors": refused(
        "for fd in range(3, 1024): attempt(os.write, fd, b'\\0\\0\\0\\x02{}'); attempt(os.read, fd, 1)"
    ),
    "pass descriptors on": refused(
        "import socket; attempt(lambda: socket.send_fds(socket.socket(1, 1, fileno=0), [b'x'], [1]))"
    ),
}

CALLS = {  # numbers of x86-64 and of arm64, arguments
    "add_key": (248, 217, 0, 0, 0, 0, 0),
    "adjtimex": (159, 171, 0),
    "another filter": (317, 277, 0, 0, 0),
    "bpf": (321, 280, 0, 0, 0),
    "clock_settime": (227, 112, 0, 0),
    "clone with a new namespace": (56, 220, 0x10000011, 0, 0, 0, 0),
    "disarm the death signal": (157, 167, 1, 0),
    "execveat": (322, 281, -1, 0, 0, 0, 0),
    "fanotify_init": (300, 262, 0, 0),
    "finit_module": (313, 273, -1, 0, 0),
    "inotify_init1": (294, 26, 0),
    "io_setup": (206, 0, 1, 0),
    "io_uring_setup": (425, 425, 1, 0),
    "ioprio_set": (251, 30, 1, 0, 0),
    "kcmp": (312, 272, 1, 1, 0, 0, 0),
    "kexec_load": (246, 104, 0, 0, 0, 0),
    "keyctl": (250, 219, 0, -3, 0),
    "memfd_create": (319, 279, 0, 0),
    "memfd_secret": (447, 447, 0),
    "mount": (165, 40, 0, 0, 0, 0, 0),
    "mq_open": (240, 180, 0, 0, 0, 0),
    "name_to_handle_at": (303, 264, -1, 0, 0, 0, 0),
    "open_by_handle_at": (304, 265, -1, 0, 0),
    "perf_event_open": (298, 241, 0, 0, -1, -1, 0),
    "personality": (135, 92, 0),
    "pidfd_getfd": (438, 438, 3, 0, 0),
    "pidfd_send_signal": (424, 424, 3, 0, 0, 0),
    "pivot_root": (155, 41, 0, 0),
    "process_madvise": (440, 440, -1, 0, 0, 0, 0),
    "process_vm_readv": (310, 270, 1, 0, 0, 0, 0, 0),
    "process_vm_writev": (311, 271, 1, 0, 0, 0, 0, 0),
    "ptrace": (101, 117, 16, 1),
    "queue a signal": (129, 138, 1, 0, 0),
    "quotactl": (179, 60, 0, 0, 0, 0),
    "request_key": (249, 218, 0, 0, 0, 0),
    "setns": (308, 268, -1, 0),
    "shmget": (29, 194, 0, 4096, 0o1600),
    "splice": (275, 76, 0, 0, 1, 0, 1, 0),
    "syslog": (103, 116, 3, 0, 0),
    "tkill": (200, 130, 1, 0),
    "umount2": (166, 39, 0, 0),
    "unshare": (272, 97, 0x10000000),
    "userfaultfd": (323, 282, 0),
    "vmsplice": (278, 75, 1, 0, 0, 0),
}

needs_x86_64 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="a way into the kernel that x86-64 has")


@pytest.mark.parametrize("abuse", PROCESSES)
def test_processes(contained: Sandbox, abuse: str) -> None:
    perpetrate(contained, PROCESSES[abuse])


@pytest.mark.parametrize("abuse", NETWORK)
def test_network(contained: Sandbox, abuse: str) -> None:
    perpetrate(contained, NETWORK[abuse])


@pytest.mark.parametrize("abuse", FILES)
def test_files(contained: Sandbox, abuse: str) -> None:
    perpetrate(contained, FILES[abuse])


def test_kernel(contained: Sandbox) -> None:
    """All of them in one execution: each would be worth as much as all."""
    column = ("x86_64", "aarch64").index(os.uname().machine)
    calls = {name: (numbers[column], *numbers[2:]) for name, numbers in CALLS.items()}
    attempts = "".join(f"print({name!r}); attempt(system_call, *{call})\n" for name, call in calls.items())
    printed = perpetrate(contained, refused(SYSTEM_CALL + attempts)).stdout.splitlines()
    assert dict(zip(printed[::2], printed[1::2], strict=True)) == dict.fromkeys(CALLS, "PermissionError")


@needs_x86_64
def test_the_x32_convention(contained: Sandbox) -> None:
    perpetrate(contained, Abuse(f"{SYSTEM_CALL}attempt(system_call, 0x40000000 + 39)", prints="PermissionError"))


@needs_x86_64
def test_the_32_bit_convention(contained: Sandbox) -> None:
    """Its number 20 is getpid; the process is killed."""
    code = r"""
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=7)
page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
print("DONE", ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))())
"""
    perpetrate(contained, Abuse(code, ("signal",)))
