"""Which system calls sandboxed code may make, and their numbers on each architecture. All of this is data.

Whatever is not named here is refused with EPERM. So nothing here creates a process, a connection or a file, looks at
another process, or reaches a kernel interface that a computation does not need (bpf, io_uring, keyctl, ptrace, …).
"""

from typing import NamedTuple


class Argument(NamedTuple):
    """A condition on the low 32 bits of an argument: `argument[index] & mask` is one of `values`."""

    index: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF


# AUDIT_ARCH_* of each machine name, from linux/audit.h: the filter refuses calls in any other convention (int 0x80).
AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# Numbers: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h. The generic table lacks the
# calls that newer ones replace (open, stat, …).
_X86_64 = """
    read 0 write 1 open 2 close 3 stat 4 fstat 5 lstat 6 poll 7 lseek 8 mmap 9 mprotect 10 munmap 11 brk 12
    rt_sigaction 13 rt_sigprocmask 14 rt_sigreturn 15 ioctl 16 pread64 17 pwrite64 18 readv 19 writev 20 access 21
    pipe 22 select 23 sched_yield 24 mremap 25 mincore 27 madvise 28 dup 32 dup2 33 pause 34 nanosleep 35 getitimer 36
    alarm 37 setitimer 38 getpid 39 sendto 44 recvfrom 45 sendmsg 46 recvmsg 47 shutdown 48 socketpair 53 clone 56
    fork 57 exit 60 wait4 61 kill 62 uname 63 fcntl 72 flock 73 fsync 74 fdatasync 75 ftruncate 77 getdents 78 getcwd 79
    chdir 80 fchdir 81 rename 82 mkdir 83 rmdir 84 unlink 87 symlink 88 readlink 89 chmod 90 umask 95 gettimeofday 96
    getrlimit 97 getrusage 98 sysinfo 99 times 100 getuid 102 getgid 104 geteuid 107 getegid 108 getppid 110 getpgrp 111
    getgroups 115 setresuid 117 getresuid 118 getresgid 120 getpgid 121 rt_sigpending 127 rt_sigtimedwait 128
    rt_sigsuspend 130 sigaltstack 131 statfs 137 fstatfs 138 prctl 157 arch_prctl 158 setrlimit 160 gettid 186 time 201
    futex 202 sched_getaffinity 204 epoll_create 213 getdents64 217 set_tid_address 218 restart_syscall 219
    fadvise64 221 clock_gettime 228 clock_getres 229 clock_nanosleep 230 exit_group 231 epoll_wait 232 epoll_ctl 233
    tgkill 234 openat 257 mkdirat 258 newfstatat 262 unlinkat 263 renameat 264 symlinkat 266 readlinkat 267 fchmodat 268
    faccessat 269 pselect6 270 ppoll 271 set_robust_list 273 epoll_pwait 281 fallocate 285 eventfd2 290
    epoll_create1 291 dup3 292 pipe2 293 prlimit64 302 getcpu 309 renameat2 316 seccomp 317 getrandom 318 membarrier 324
    statx 332 rseq 334 pidfd_open 434 clone3 435 close_range 436 openat2 437 faccessat2 439
"""
_GENERIC = """
    getcwd 17 eventfd2 19 epoll_create1 20 epoll_ctl 21 epoll_pwait 22 dup 23 dup3 24 fcntl 25 ioctl 29 flock 32
    mkdirat 34 unlinkat 35 symlinkat 36 renameat 38 statfs 43 fstatfs 44 ftruncate 46 fallocate 47 faccessat 48 chdir 49
    fchdir 50 fchmodat 53 openat 56 close 57 pipe2 59 getdents64 61 lseek 62 read 63 write 64 readv 65 writev 66
    pread64 67 pwrite64 68 pselect6 72 ppoll 73 readlinkat 78 newfstatat 79 fstat 80 fsync 82 fdatasync 83 exit 93
    exit_group 94 set_tid_address 96 futex 98 set_robust_list 99 nanosleep 101 getitimer 102 setitimer 103
    clock_gettime 113 clock_getres 114 clock_nanosleep 115 sched_getaffinity 123 sched_yield 124 restart_syscall 128
    kill 129 tgkill 131 sigaltstack 132 rt_sigsuspend 133 rt_sigaction 134 rt_sigprocmask 135 rt_sigpending 136
    rt_sigtimedwait 137 rt_sigreturn 139 setresuid 147 getresuid 148 getresgid 150 times 153 getpgid 155 getgroups 158
    uname 160 getrlimit 163 setrlimit 164 getrusage 165 umask 166 prctl 167 getcpu 168 gettimeofday 169 getpid 172
    getppid 173 getuid 174 geteuid 175 getgid 176 getegid 177 gettid 178 sysinfo 179 socketpair 199 sendto 206
    recvfrom 207 shutdown 210 sendmsg 211 recvmsg 212 brk 214 munmap 215 mremap 216 clone 220 mmap 222 fadvise64 223
    mprotect 226 mincore 232 madvise 233 wait4 260 prlimit64 261 renameat2 276 seccomp 277 getrandom 278 membarrier 283
    statx 291 rseq 293 pidfd_open 434 clone3 435 close_range 436 openat2 437 faccessat2 439
"""


def _table(text: str) -> dict[str, int]:
    words = text.split()
    return {name: int(number) for name, number in zip(words[::2], words[1::2], strict=True)}


NUMBERS = {"x86_64": _table(_X86_64), "aarch64": _table(_GENERIC)}
NAMES = {machine: {number: name for name, number in table.items()} for machine, table in NUMBERS.items()}

_ALLOWED_BY_PURPOSE = (
    # files and descriptors; which files is the business of Landlock and of the mounts
    "read write close stat fstat lstat poll lseek pread64 pwrite64 readv writev access select dup dup2 dup3 getdents "
    "getcwd readlink statfs fstatfs epoll_create getdents64 epoll_wait epoll_ctl newfstatat readlinkat "
    "faccessat faccessat2 statx pselect6 ppoll epoll_pwait epoll_create1 eventfd2 pipe pipe2 close_range umask "
    # files in its scratch folder. Nothing here changes a file through its path only (truncate, chmod, utime, link):
    # Landlock does not control all of those, and somebody may run the sandbox who owns the libraries
    "mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 ftruncate fsync fdatasync fallocate flock chdir "
    "fchdir fadvise64 symlink symlinkat "
    # the ends of a socket pair
    "sendto recvfrom sendmsg recvmsg shutdown "
    # memory
    "mmap mprotect munmap brk mremap mincore madvise "
    # signals to itself, timers, clocks
    "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack pause nanosleep "
    "getitimer alarm setitimer gettimeofday times time clock_gettime clock_getres clock_nanosleep restart_syscall "
    # itself and the machine
    "getpid getppid gettid getuid getgid geteuid getegid getresuid getresgid getgroups getpgrp getpgid getrlimit "
    "getrusage uname sysinfo getcpu sched_getaffinity getrandom arch_prctl "
    # threads, and the end
    "futex set_robust_list set_tid_address rseq membarrier sched_yield exit exit_group wait4"
)
ALLOWED = frozenset(_ALLOWED_BY_PURPOSE.split())

_AF_UNIX, _SOCK_STREAM = 1, 1
_ACCESS_MODE, _TRUNCATE = 3, 0x200  # of open(2): O_ACCMODE, O_TRUNC
_OPENINGS = (0, 1, 2, 1 | _TRUNCATE, 2 | _TRUNCATE)  # not: truncating without writing, which Landlock 1 and 2 overlook

CONDITIONAL: dict[str, tuple[Argument, ...]] = {
    "open": (Argument(1, _OPENINGS, mask=_ACCESS_MODE | _TRUNCATE),),
    "openat": (Argument(2, _OPENINGS, mask=_ACCESS_MODE | _TRUNCATE),),
    # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX. Others push input into terminals or direct signals.
    "ioctl": (Argument(1, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),),
    # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETLK, F_SETLK, F_SETLKW, F_DUPFD_CLOEXEC, F_GETPIPE_SZ. F_SETOWN
    # would direct signals.
    "fcntl": (Argument(1, (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032)),),
    # A stream pair is what asyncio needs; an end of a datagram pair could be pointed at any socket of the machine.
    "socketpair": (Argument(0, (_AF_UNIX,)), Argument(1, (_SOCK_STREAM,), mask=0xF)),
    # Its own limits only, never those of a sibling.
    "prlimit64": (Argument(0, (0,)),),
}

# Refused as "unknown to this kernel", so that the C library falls back to the older call.
UNKNOWN = frozenset({"clone3", "openat2"})

# What a zygote, and a child before it is locked down, may do besides.
SETUP = frozenset(
    ["clone", "fork", "kill", "tgkill", "prctl", "seccomp", "setrlimit", "setresuid", "pidfd_open", "chmod", "fchmodat"]
)

_CLONE_THREAD = 0x00010000
_NEW_NAMESPACES = 0x7E020080  # every CLONE_NEW* flag


THREAD = (Argument(0, (_CLONE_THREAD,), mask=_CLONE_THREAD | _NEW_NAMESPACES),)
"""The condition under which `clone` makes a thread."""

FORK = 0x01200011
"""The flags with which the C library's fork calls `clone`: SIGCHLD, and two that concern the thread's own memory."""

ASKED = frozenset({"clone", "kill", "tgkill"})
"""What the processes of a session may do when the supervisor agrees."""


def of_locked_child(pid: int) -> dict[str, tuple[Argument, ...]]:
    """Which of `SETUP` the locked-down process `pid` keeps: threads, and signals to itself."""
    return {
        "clone": THREAD,
        "kill": (Argument(0, (pid,)),),
        "tgkill": (Argument(0, (pid,)),),
    }
