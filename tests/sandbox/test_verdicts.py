"""How an execution ended is told truthfully, and in words that help whoever wrote the code."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from processes import supervisor_of
from profiles import WITHOUT_QUESTIONS

from conftest import sandbox_in
from retool.sandbox import Limits, Result, Sandbox
from retool.types import CallStatus


@pytest.mark.parametrize(
    ("code", "status", "exit_code"),
    [
        ("print(1)", "ok", 0),
        ("", "ok", 0),
        ("# nothing", "ok", 0),
        ("import sys; sys.exit()", "ok", 0),
        ("import sys; sys.exit(0)", "ok", 0),
        ("import sys; sys.exit(3)", "exit", 3),
        ("import sys; sys.exit('bye')", "exit", 1),
        ("import os; os._exit(7)", "exit", 7),
        ("import os; os._exit(120)", "exit", 120),
        ("import os; os._exit(122)", "exit", 122),
        ("1/0", "error", 1),
        ("raise KeyboardInterrupt", "error", 1),
        ("if x\n", "error", 1),
        ("print('\0')", "error", 1),
        ("def f(): f()\nf()", "error", 1),
        ("(" * 5000, "error", 1),
        ("x = '\udcff'", "error", 1),
        ("x = bytearray(8 << 30)", "memory_limit", 1),
        ("x = [0]\nwhile True: x += x", "memory_limit", 1),
        ("import numpy\nnumpy.ones(1 << 32)", "memory_limit", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal", -11),
        ("import os; os.kill(os.getpid(), 40)", "signal", -40),
        ("import os; os.abort()", "signal", -6),
        ("while True: pass", "time_limit", -9),
        ("import signal\nsignal.setitimer(signal.ITIMER_REAL, 0)\n10 ** 10 ** 9", "time_limit", -9),
        ("import re; re.match('(a+)+b', 'a' * 40)", "time_limit", -9),
        ("while True:\n  try:\n    while True: pass\n  except BaseException: pass", "time_limit", -9),
        ("import time; time.sleep(60)", "time_limit", -9),
        ("import threading; threading.Lock().acquire() and threading.Event().wait()", "time_limit", -9),
        ("import atexit\n@atexit.register\ndef f():\n  while True: pass", "time_limit", -9),
        ("while True: print('x' * 10000)", "output_limit", -9),
    ],
)
def test_an_execution_ends_with_the_verdict(box: Sandbox, code: str, status: str, exit_code: int) -> None:
    result = box.run_blocking(code, Limits(cpu_seconds=0.2, idle_seconds=0.2, memory_mib=64))
    assert (result.status, result.exit_code) == (status, exit_code)


def test_verdicts_are_the_same_where_the_kernel_asks_nobody_before_a_process_ends() -> None:
    codes = ("print(1)", "import os; os._exit(7)", "1 / 0", "import os; os.abort()", "while True: pass")
    with sandbox_in(WITHOUT_QUESTIONS) as box:
        results = [box.run_blocking(code, Limits(cpu_seconds=0.2)) for code in codes]
        assert [str(result.status) for result in results] == ["ok", "exit", "error", "signal", "time_limit"]
        assert all(result.peak_bytes for result in results)


LARGE = Limits(output_bytes=1 << 20)

LINGERING = """
import os, signal, threading, time
def go_on(*_):
    os.write(1, b'.')
signal.signal(signal.SIGALRM, go_on)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
def print_on():
    while True:
        os.write(1, b'.' * 1000)
for _ in range(3):
    threading.Thread(target=print_on, daemon=True).start()
time.sleep(0.02)
"""


@pytest.mark.parametrize("end", ["os._exit(5)", "threading.Thread(target=os._exit, args=(5,)).start(); time.sleep(60)"])
def test_code_that_wants_to_go_on_after_its_exit_does_not(box: Sandbox, end: str) -> None:
    result = box.run_blocking(LINGERING + end)
    assert (result.status, result.exit_code) == ("exit", 5)


RINGING = """
import os, signal, threading, time
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
time.sleep(0.2)
"""


@pytest.mark.parametrize(("end", "status"), [("", "ok"), ("os._exit(5)", "exit"), ("import sys; sys.exit(5)", "exit")])
def test_signals_do_not_keep_code_from_its_end_while_the_supervisor_is_slow(
    box: Sandbox, end: str, status: str
) -> None:
    supervisor = supervisor_of(box)
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(box.run_blocking, RINGING + end, Limits(idle_seconds=5))
        time.sleep(0.1)
        os.kill(supervisor, signal.SIGSTOP)
        time.sleep(0.3)
        os.kill(supervisor, signal.SIGCONT)
        assert result.result().status == status


def test_all_that_was_printed_before_the_end_arrives(box: Sandbox) -> None:
    for size in (0, 1, 65535, 65536, 65537, 300_000):
        result = box.run_blocking(f"import os\nos.write(1, b'x' * {size})\nos.write(2, b'y')\nos._exit(3)", LARGE)
        assert (len(result.stdout), result.stderr, result.exit_code) == (size, "y", 3)


def test_a_traceback_shows_the_lines_of_the_code_and_nothing_of_the_sandbox(box: Sandbox) -> None:
    result = box.run_blocking("def half(x):\n    return x / 0\n\nprint('before')\nhalf(3)\n")
    assert result.text.splitlines() == [
        "before",
        "Traceback (most recent call last):",
        '  File "main.py", line 5, in <module>',
        "    half(3)",
        '  File "main.py", line 2, in half',
        "    return x / 0",
        "           ~~^~~",
        "ZeroDivisionError: division by zero",
    ]


def test_frames_of_libraries_are_left_out_of_a_traceback(box: Sandbox) -> None:
    result = box.run_blocking("import json\njson.loads('{')")
    assert 'File "main.py", line 2' in result.stderr
    assert result.stderr.count("File ") == 1


def test_a_huge_exception_message_is_cut(box: Sandbox) -> None:
    result = box.run_blocking("raise ValueError('x' * 10_000_000)")
    assert result.status == CallStatus.ERROR
    assert len(result.text) < 5000
    assert "characters omitted" in result.text


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("while True: pass", "TimeLimitExceeded: the code used more than 0.5 s of CPU time"),
        ("import time; time.sleep(60)", "TimeLimitExceeded: the code waited for more than 0.5 s without computing"),
        ("x = bytearray(8 << 30)", "MemoryLimitExceeded: the code needed more than 256 MiB of memory"),
        ("while True: print('x' * 10000)", "OutputLimitExceeded: the code printed more than 64 MiB"),
        ("import sys; sys.exit(3)", "SystemExit: the code ended with exit code 3"),
        ("import os; os.abort()", "the code was ended by signal 6 (Aborted)"),
    ],
)
def test_the_model_is_told_in_a_sentence_why_its_code_ended(box: Sandbox, code: str, sentence: str) -> None:
    assert box.run_blocking(code).text.splitlines()[-1] == sentence


def test_only_an_execution_that_went_well_can_be_answered_by_nothing() -> None:
    assert Result(CallStatus.OK).text == ""
    assert Result(CallStatus.TIME_LIMIT, reason="TimeLimitExceeded").text == "TimeLimitExceeded"


def test_what_was_printed_before_a_time_out_is_kept(box: Sandbox) -> None:
    result = box.run_blocking("print('line')\nwhile True: pass")
    assert result.stdout == "line\n"


def test_stderr_is_shown_to_the_model_after_a_failure_only(box: Sandbox) -> None:
    print_both = "import sys\nprint('out')\nprint('warning', file=sys.stderr)\n"
    assert box.run_blocking(print_both).text == "out"
    assert box.run_blocking(print_both).stderr == "warning\n"
    assert "warning" in box.run_blocking(print_both + "1/0").text


def test_an_execution_accounts_for_what_it_used(box: Sandbox) -> None:
    result = box.run_blocking("x = bytearray(100 << 20)\nfor _ in range(2_000_000): pass")
    assert 0.01 < result.cpu_s < 0.5
    assert result.wall_s >= result.cpu_s * 0.9
    assert result.queue_s >= 0
    assert 100 << 20 < result.peak_bytes < 200 << 20


def test_a_call_may_bring_its_own_limits(box: Sandbox) -> None:
    limits = Limits(cpu_seconds=3.0, memory_mib=64, output_bytes=100)
    assert box.run_blocking("x = bytearray(128 << 20)", limits).status == CallStatus.MEMORY_LIMIT
    assert len(box.run_blocking("print('x' * 1000)", limits).stdout) < 200
    slow = "import time\nwhile time.process_time() < 0.8: pass"
    assert box.run_blocking(slow, limits).status == CallStatus.OK


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("print(len(str(3 ** 20000)))", "9543"),
        ("import threading\nthreading.Thread(target=lambda: print('thread')).start()", "thread"),
        ("import asyncio\nasync def f(): print('loop')\nasyncio.run(f())", "loop"),
        ("import atexit\natexit.register(print, 'end')", "end"),
        ("from fractions import Fraction\nprint(Fraction(1, 3) + 1)", "4/3"),
        ("import sympy as s\nprint(s.solve(s.Symbol('x')**2 - 4))", "[-2, 2]"),
        ("import numpy as np\nprint((np.eye(2) @ np.ones(2)).sum())", "2.0"),
        ("from dataclasses import dataclass\n@dataclass\nclass P:\n  x: int\nprint(P(1))", "P(x=1)"),
        ("print(__name__)", "__main__"),
        ("try:\n  input()\nexcept EOFError: print('no input')", "no input"),
        ("print('\\udcff', chr(0x1F600))", "\\udcff 😀"),
    ],
)
def test_honest_code_prints_what_it_would_print_anywhere(box: Sandbox, code: str, output: str) -> None:
    result = box.run_blocking(code)
    assert (result.text, result.status) == (output, CallStatus.OK)
