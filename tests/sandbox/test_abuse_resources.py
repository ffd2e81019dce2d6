"""Code that takes all the time, memory, threads or output there is. It is stopped, and told the truth."""

import pytest
from abuse import QUICK, ROOMY, Abuse, endless, perpetrate

from retool.sandbox import Limits, Sandbox

OUT_OF_MEMORY = ("memory_limit",)
SMALL = Limits(memory_mib=16)

TIME = {
    "infinite loop": endless("while True: pass"),
    "sleep forever": endless("import time; time.sleep(10 ** 6)"),
    "deadlock": endless("import threading; threading.Lock().acquire() and threading.Event().wait()"),
    "wait for a signal": endless("import signal; signal.pause()"),
    "wait for itself through a pipe": endless("r, w = os.pipe(); os.read(r, 1)"),
    "ignore all signals": endless(
        """
import signal
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True: pass
"""
    ),
    "block all signals": endless(
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass"
    ),
    "disarm the alarm": endless("import signal; signal.setitimer(signal.ITIMER_REAL, 0); signal.alarm(0)\nwhile 1: 0"),
    "a thread that is not waited for ends with the code": Abuse(
        "import threading\ndef f():\n  while True: pass\nthreading.Thread(target=f, daemon=True).start(); print('end')",
        prints="end",
    ),
    "a thread that is waited for": endless(
        "import threading\ndef f():\n  while 1: 0\nthreading.Thread(target=f).start()"
    ),
    "threads that share the CPU": endless(
        "import threading\ndef f():\n  while 1: 0\nfor _ in range(8): threading.Thread(target=f).start()"
    ),
    "forever in small sleeps": endless("import time\nwhile True: time.sleep(0.001)"),
}

COMPUTATION = {
    "hold the interpreter's lock in pow": endless("3 ** (10 ** 9)"),
    "hold the interpreter's lock in str": endless("x = 3 ** 5_000_000\nwhile True: str(x)"),
    "regular expression": endless("import re; re.match('(a+)+b', 'a' * 60)"),
    "catch everything": endless("while True:\n  try:\n    while True: pass\n  except BaseException: pass"),
    "loop in a destructor": endless("class A:\n  def __del__(self):\n    while True: pass\na = A(); del a"),
    "hang at exit": endless("import atexit\n@atexit.register\ndef f():\n  while True: pass"),
    "hang in an exception's text": endless("class E(Exception):\n  def __str__(self):\n    while 1: 0\nraise E"),
}

NUMBERS = {
    "fork bomb": endless("while True:\n  try: os.fork()\n  except OSError: pass"),
    "thread bomb": Abuse(
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
        ("error", "memory_limit"),
    ),
    "pipes": Abuse("ends = []\nwhile True: ends += os.pipe()", ("error",)),
    "descriptors": Abuse("while True: os.dup(1)", ("error",)),
    "a pipe kept by a process in the background": Abuse(
        "if os.fork() == 0:\n  while True: pass\nprint('DONE')", ("error",)
    ),
    "a daemon": Abuse("if os.fork() == 0:\n  os.setsid()\n  os.fork()\nprint('DONE')", ("error",)),
}

MEMORY = {
    "one large object": Abuse("x = bytearray(8 << 30)", OUT_OF_MEMORY),
    "a list that grows": Abuse("x = [0]\nwhile True: x += x", OUT_OF_MEMORY, limits=SMALL),
    "strings": Abuse("x = 'x'\nwhile True: x += x", OUT_OF_MEMORY, limits=SMALL),
    "many small objects": Abuse("x = None\nwhile True: x = [x]", OUT_OF_MEMORY, limits=SMALL),
    "an error that is caught": Abuse(
        "x = []\nwhile True:\n  try:\n    x.append(bytearray(1 << 20))\n  except MemoryError: pass",
        ("time_limit",),
        limits=QUICK,
    ),
    "shared memory": Abuse("import mmap; mmap.mmap(-1, 8 << 30)", ("error",)),
    "shared memory in pieces": Abuse("import mmap\nx = []\nwhile True: x.append(mmap.mmap(-1, 1 << 26))", ("error",)),
    "anonymous file": Abuse("attempt(os.memfd_create, MARK)"),
    "stacks of threads": Abuse(
        "import threading; threading.stack_size(1 << 30)\nthreading.Thread(target=print).start()", ("error",)
    ),
    "a large program": Abuse("x = [" + "0, " * 1_000_000 + "]", OUT_OF_MEMORY, limits=SMALL),
}

INTERPRETER = {
    "recursion": Abuse("def f(): f()\nf()", ("error",)),
    "recursion without a limit": Abuse(
        "sys.setrecursionlimit(10 ** 9)\ndef f(): f()\nf()", ("time_limit", "memory_limit", "error"), limits=QUICK
    ),
    "recursion in C": Abuse("x = iter([1])\nfor _ in range(300_000): x = map(abs, x)\nnext(x)", ("signal",)),
    "segmentation fault": Abuse("import ctypes; ctypes.string_at(0)", ("signal",)),
    "abort": Abuse("os.abort()", ("signal",)),
    "broken bytecode": Abuse(
        "def f(): pass\nf.__code__ = f.__code__.replace(co_code=b'\\xff' * 64)\nf()", ("signal", "error")
    ),
    "kill itself": Abuse("os.kill(os.getpid(), 9)", ("signal",)),
    "stop itself": endless("import signal; os.kill(os.getpid(), signal.SIGSTOP)"),
}

OUTPUT = {
    "flood of stdout": Abuse("while True: print('x' * 100_000)", ("output_limit",)),
    "flood of stderr": Abuse("while True: print('x' * 100_000, file=sys.stderr)", ("output_limit",)),
    "flood of both": Abuse("while True:\n  os.write(1, b'x' * 60_000); os.write(2, b'x' * 60_000)", ("output_limit",)),
    "one long line": Abuse("print('x' * 10_000_000)"),
    "huge number": Abuse("print(10 ** 100_000)"),
    "huge message": Abuse("raise ValueError('x' * 10_000_000)", ("error",)),
    "a chain of many exceptions": Abuse(
        """
error = None
for _ in range(400):
    try: raise ValueError('x') from error
    except ValueError as raised: error = raised
raise error
""",
        ("error",),
    ),
    "hidden messages": Abuse("class E(Exception):\n  def __str__(self): 1 / 0\nraise E", ("error",)),
}


@pytest.mark.parametrize("abuse", TIME)
def test_time(contained: Sandbox, abuse: str) -> None:
    assert perpetrate(contained, TIME[abuse]).wall_s < 5


@pytest.mark.parametrize("abuse", COMPUTATION)
def test_computation(box: Sandbox, abuse: str) -> None:
    """Time spent inside of the interpreter, where no signal handler of Python's own would ever run."""
    assert perpetrate(box, COMPUTATION[abuse]).wall_s < 5


@pytest.mark.parametrize("abuse", NUMBERS)
def test_processes_threads_and_descriptors(contained: Sandbox, abuse: str) -> None:
    perpetrate(contained, NUMBERS[abuse])


@pytest.mark.parametrize("abuse", MEMORY)
def test_memory(contained: Sandbox, abuse: str) -> None:
    result = perpetrate(contained, MEMORY[abuse])
    assert result.peak_bytes < 200 << 20


@pytest.mark.parametrize("abuse", INTERPRETER)
def test_the_interpreter_itself(contained: Sandbox, abuse: str) -> None:
    perpetrate(contained, INTERPRETER[abuse])


@pytest.mark.parametrize("abuse", OUTPUT)
def test_output(box: Sandbox, abuse: str) -> None:
    result = perpetrate(box, OUTPUT[abuse])
    assert len(result.text.encode()) < 3 * ROOMY.output_bytes
