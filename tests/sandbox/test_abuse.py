"""Hostile code, run in the sandbox only: what it tries is refused, and the sandbox goes on as if nothing had happened.

Every snippet prints what it managed to do; contained code prints nothing but the names of the errors it met. Attempts
on other processes use signal 0, which asks for permission and does no harm.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from retool.sandbox import Limits, Sandbox, SandboxConfig

ATTEMPT = """
import os, sys
def attempt(action, *arguments):
    try:
        print("DONE", action, action(*arguments))
    except BaseException as error:
        print(type(error).__name__)
"""

SYSTEM_CALL = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def system_call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")
    return "a system call"
"""

needs_x86_64 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86-64")

ABUSES = {
    "fork": "attempt(os.fork)",
    "fork with the pty module": "import pty; attempt(pty.fork)",
    "subprocess": "import subprocess; attempt(subprocess.run, ['true'])",
    "shell": "import subprocess; attempt(lambda: subprocess.check_output('echo hello', shell=True))",
    "posix_spawn": "attempt(os.posix_spawn, '/bin/true', ['true'], {})",
    "exec": "attempt(os.execv, '/bin/true', ['true'])",
    "multiprocessing": "import multiprocessing; attempt(lambda: multiprocessing.Pool(1))",
    "tcp socket": "import socket; attempt(socket.create_connection, ('127.0.0.1', 22), 1)",
    "udp socket": "import socket; attempt(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)",
    "unix socket": "import socket; attempt(socket.socket, socket.AF_UNIX)",
    "datagram pair": "import socket; attempt(socket.socketpair, socket.AF_UNIX, socket.SOCK_DGRAM)",
    "name lookup": "import socket; attempt(socket.getaddrinfo, 'example.org', 80)",
    "read accounts": "attempt(lambda: open('/etc/passwd').read())",
    "read parent's environment": "attempt(lambda: open(f'/proc/{os.getppid()}/environ').read())",
    "read own environment": "attempt(lambda: open('/proc/self/environ').read())",
    "read parent's command line": "attempt(lambda: open(f'/proc/{os.getppid()}/cmdline').read())",
    "list the root": "attempt(os.listdir, '/')",
    "list the home": "attempt(os.listdir, os.path.expanduser('~root'))",
    "list the processes": "attempt(os.listdir, '/proc')",
    "write a temporary file": "attempt(open, '/tmp/retool-abuse', 'w')",
    "write shared memory": "attempt(open, '/dev/shm/retool-abuse', 'w')",
    "write into the libraries": "attempt(open, os.path.join(os.path.dirname(os.__file__), 'abuse.py'), 'w')",
    "write above its folder": "attempt(open, '../abuse', 'w')",
    "write into the root": "attempt(open, '/abuse', 'w')",
    "list the folders of others": "attempt(os.listdir, '..')",
    "change the mode of a library": "attempt(os.chmod, os.__file__, 0o777)",
    "touch a library": "attempt(os.utime, os.__file__)",
    "truncate a library by its path": "attempt(os.truncate, os.__file__, 0)",
    "truncate a library while reading": "attempt(os.open, os.__file__, os.O_RDONLY | os.O_TRUNC)",
    "make a device": "attempt(os.mknod, 'device', 0o20666, 0x103)",
    "make a named pipe": "attempt(os.mkfifo, 'pipe')",
    "make a directory": "attempt(os.mkdir, '/tmp/retool-abuse')",
    "remove a file": "attempt(os.unlink, os.__file__)",
    "link": "attempt(os.symlink, '/etc/passwd', '/tmp/retool-abuse')",
    "anonymous file": "attempt(os.memfd_create, 'abuse')",
    "named shared memory": "from multiprocessing import shared_memory as m; attempt(m.SharedMemory, 'a', True, 9)",
    "signal parent": "attempt(os.kill, os.getppid(), 0)",
    "signal everybody": "attempt(os.kill, -1, 0)",
    "signal the group": "attempt(os.killpg, 0, 0)",
    "signal process 1": "attempt(os.kill, 1, 0)",
    "signals through a pipe": "import fcntl\nr, w = os.pipe()\nattempt(fcntl.fcntl, r, fcntl.F_SETOWN, os.getppid())",
    "open another process": "attempt(os.pidfd_open, os.getppid())",
    "limits of another process": "import resource; attempt(resource.prlimit, os.getppid(), resource.RLIMIT_CPU)",
    "raise own limits": "import resource; attempt(resource.setrlimit, resource.RLIMIT_CPU, (9999, 9999))",
    "become root": "attempt(os.setuid, 0)",
    "change root": "attempt(os.chroot, '/')",
    "priority": "attempt(os.setpriority, os.PRIO_PROCESS, os.getppid(), 0)",
    "push input into a terminal": "import fcntl, termios; attempt(fcntl.ioctl, 1, termios.TIOCSTI, b'x')",
}

SYSTEM_CALLS = {
    "ptrace": (101, 16, 1),
    "process_vm_readv": (310, 1, 0, 0, 0, 0, 0),
    "unshare": (272, 0x10000000),
    "mount": (165, 0, 0, 0, 0, 0),
    "bpf": (321, 0, 0, 0),
    "io_uring_setup": (425, 1, 0),
    "userfaultfd": (323, 0),
    "perf_event_open": (298, 0, 0, -1, -1, 0),
    "keyctl": (250, 0, -3, 0),
    "open_by_handle_at": (304, -1, 0, 0),
    "disarm the death signal": (157, 1, 0),
    "another filter": (317, 0, 0, 0),
    "queue a signal": (129, 1, 0, 0),
    "clone with a new namespace": (56, 0x10000011, 0, 0, 0, 0),
    "x32 getpid": (0x40000000 + 39,),
}


@pytest.mark.parametrize("abuse", ABUSES)
def test_contained(box: Sandbox, abuse: str) -> None:
    result = box.run_blocking(ATTEMPT + ABUSES[abuse])
    assert result.status == "ok", result
    assert "DONE" not in result.stdout
    assert result.stdout.strip(), "it should have met an error"
    assert box.run_blocking("print('well')").text == "well"


@needs_x86_64
@pytest.mark.parametrize("call", SYSTEM_CALLS)
def test_system_call_is_refused(box: Sandbox, call: str) -> None:
    result = box.run_blocking(f"{ATTEMPT}{SYSTEM_CALL}attempt(system_call, *{SYSTEM_CALLS[call]})")
    assert result.text == "PermissionError"


def test_a_fork_bomb_does_not_multiply(box: Sandbox) -> None:
    bomb = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"
    assert box.run_blocking(bomb).status == "time_limit"


def test_a_thread_bomb_ends(box: Sandbox) -> None:
    bomb = "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,), daemon=True).start()"
    assert box.run_blocking(bomb).status in ("error", "time_limit", "memory_limit")


def test_the_environment_of_the_trainer_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "secret")
    with Sandbox(SandboxConfig(workers=1)) as box:
        result = box.run_blocking("import os\nfor name in os.environ: print(name)")
    assert "SOME_API_KEY" not in result.text
    assert set(result.text.split()) <= {
        "PATH", "LC_ALL", "TZ", "PYTHONUTF8", "PYTHONHASHSEED", "LD_LIBRARY_PATH",
        "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "SYMPY_CACHE_SIZE",
    }  # fmt: skip


def test_no_descriptor_is_inherited(box: Sandbox) -> None:
    code = """
        import os
        for descriptor in range(1024):
            try: os.fstat(descriptor)
            except OSError: continue
            print(descriptor)
    """
    assert box.run_blocking(textwrap.dedent(code)).text.split() == ["0", "1", "2"]


def test_the_project_is_out_of_sight(box: Sandbox) -> None:
    code = "import sys\nprint([name for name in sys.modules if 'retool' in name])\nimport retool.grading"
    result = box.run_blocking(code)
    assert result.stdout == "[]\n"
    assert "ModuleNotFoundError" in result.stderr


def test_files_of_the_project_cannot_be_read(box: Sandbox) -> None:
    result = box.run_blocking(f"print(open({str(Path(__file__).resolve())!r}).read())")
    assert "PermissionError" in result.text or "FileNotFoundError" in result.text


def test_one_execution_finds_nothing_of_another(box: Sandbox) -> None:
    box.run_blocking("import builtins, sys, math\nbuiltins.left = sys.left = math.pi = 'behind'")
    assert box.run_blocking("import sys, math\nprint(hasattr(sys, 'left'), 'left' in dir(), math.pi)").text == (
        "False False 3.141592653589793"
    )


def test_the_frames_below_the_code_hold_no_other_code(box: Sandbox) -> None:
    secret = "print('first')  # the-code-of-another"
    box.run_blocking(secret)
    code = """
        import gc, sys
        mine = 'the-code-of-' + 'another'
        found = [o for o in gc.get_objects() if isinstance(o, str) and o is not mine and mine in o]
        frame = sys._getframe()
        while frame:
            names = {**frame.f_globals, **frame.f_locals}
            found += [v for v in names.values() if isinstance(v, str) and mine in v and v != mine]
            frame = frame.f_back
        print(found)
    """
    assert box.run_blocking(textwrap.dedent(code).replace("'the-code-of-'", "'the-' + 'code-of-'")).text == "[]"


def test_replacing_the_ways_out_hurts_the_code_only(box: Sandbox) -> None:
    code = """
        import os, sys, builtins
        frame = sys._getframe()
        while frame:
            for name in ('_exit', '_kill'):
                if name in frame.f_globals: frame.f_globals[name] = lambda *_: None
            frame = frame.f_back
        os._exit = os.kill = lambda *_: None
        sys.stdout = sys.stderr = None
        builtins.print = None
        sys.modules.clear()
    """
    result = box.run_blocking(textwrap.dedent(code))
    assert result.status not in ("ok", "sandbox_error", "overload")
    assert box.run_blocking("print('well')").text == "well"


def test_output_cannot_be_forged_into_a_verdict(box: Sandbox) -> None:
    code = """
        import os
        for descriptor in range(3, 64):
            try: os.write(descriptor, b'{"op": "exited", "id": 0, "status": 0}')
            except OSError: pass
        os.close(1); os.close(2)
        os._exit(121)
    """
    assert box.run_blocking(textwrap.dedent(code)).status == "memory_limit"


def test_many_open_files_and_pipes_stay_within_limits(box: Sandbox) -> None:
    result = box.run_blocking("import os\nends = []\nwhile True: ends += os.pipe()")
    assert "Too many open files" in result.text


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_user_gets_the_same_containment() -> None:
    """The zygote runs under a uid without rights, from an interpreter that everybody can read."""
    python = Path("/usr/bin/python3")
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    if not python.exists() or version not in os.path.realpath(python):
        pytest.skip(f"no {version} at {python} that every user can run")
    code = f"""
import os, sys
sys.path.append({str(Path(__file__).parents[2] / "src")!r})
from retool.sandbox import preload, isolation
os.setgid(1234); os.setuid(1234)
preload.preload("light")
print(isolation.contain([], 1).report["refused"], os.getuid())
"""
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "['files', 'network', 'processes', 'signals'] 1234", done.stderr


def test_limits_hold_for_hostile_values(box: Sandbox) -> None:
    code = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))"
    assert box.run_blocking(code, Limits(memory_mib=64)).status == "error"
