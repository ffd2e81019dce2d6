"""Code that is broken, odd, or turns on the interpreter that runs it: only its own execution suffers."""

import textwrap

import pytest
from abuse import QUICK, Abuse, perpetrate
from profiles import TOO_WEAK

from conftest import MARK
from retool.errors import RetoolError
from retool.sandbox import Limits, Sandbox, SandboxConfig, connection

FAILS = ("error",)

SOURCE = {
    "broken syntax": Abuse("if x\n", FAILS),
    "zero byte": Abuse("print('\0')", FAILS),
    "lone surrogate": Abuse("x = '\udcff'", FAILS),
    "odd characters": Abuse("print('\u200b\ufeff\u202e'); \N{GREEK SMALL LETTER MU} = 1", prints="\u200b\ufeff\u202e"),
    "declared encoding": Abuse("# -*- coding: utf-16 -*-\nprint(1)", prints="1"),
    "nested parentheses": Abuse("(" * 5000 + ")" * 5000, FAILS),
    "nested operators": Abuse("x = " + "-" * 100_000 + "1", ("error", "signal", "memory_limit")),
    "nested functions": Abuse("\n".join(" " * n + "def f():" for n in range(200)), FAILS),
    "long line": Abuse("x = " + "1 + " * 50_000 + "1\nprint('x')", ("error", "ok", "signal", "memory_limit")),
    "large constant": Abuse("x = 10 ** 10 ** 10", ("time_limit", "memory_limit"), limits=QUICK),
    "no newline in a comment": Abuse("#" + "x" * 1_000_000 + "\nprint('end')", prints="end"),
    "windows newlines": Abuse("if True:\r\n    print('end')\r\n", prints="end"),
    "bad future": Abuse("x = 1\nfrom __future__ import braces", FAILS),
    "warnings": Abuse("print('\\d' is 1)", prints="False"),
}

EXITS = {
    "exit in a thread": Abuse(
        "import threading; t = threading.Thread(target=lambda: sys.exit(3)); t.start(); t.join(); print('end')",
        prints="end",
    ),
    "exit with an object": Abuse("sys.exit([MARK])", ("exit",)),
    "exit with a large number": Abuse("sys.exit(2 ** 40 + 7)", ("exit",)),
    "exit that cannot be printed": Abuse("class A:\n  def __str__(self): 1 / 0\nsys.exit(A())", ("exit", "error")),
    "interrupt": Abuse("raise KeyboardInterrupt", FAILS),
    "generator exit": Abuse("raise GeneratorExit", FAILS),
    "interrupt while printing": Abuse("class A:\n  def __repr__(self): raise KeyboardInterrupt\nprint(A())", FAILS),
    "exception at exit": Abuse("import atexit; atexit.register(lambda: 1 / 0); print('end')", ("ok", "error")),
    "forged success": Abuse("print('before', flush=True); 1 / 0", FAILS),
    "forged lack of memory": Abuse("os._exit(121)", ("memory_limit",)),
    "forged exception": Abuse("os._exit(120)", ("exit",)),
    "forged exception with a text": Abuse("os.write(2, b'Traceback'); os._exit(120)", FAILS),
    "forged time limit": Abuse("os.kill(os.getpid(), 24)", ("signal",)),
    "forged kill": Abuse("os.kill(os.getpid(), 9)", ("signal",)),
}

STREAMS = {
    "close every descriptor": Abuse("os.closerange(0, 1024)", ("ok", "error", "exit"), prints=""),
    "close the streams": Abuse("sys.stdout.close(); sys.stderr.close()", prints=""),
    "print over an error": Abuse("os.dup2(2, 1); print('x')", prints=""),
    "no stdout": Abuse("sys.stdout = None; print('x')", prints=""),
    "no stderr": Abuse("sys.stderr = None; 1 / 0", FAILS),
    "a stdout that fails": Abuse("class A:\n  write = flush = None\nsys.stdout = sys.stderr = A()", ("ok", "error")),
    "a message of the supervisor": Abuse(
        'import json; m = json.dumps({"op": "result", "id": 0, "status": "ok"}).encode()\n'
        "os.write(1, len(m).to_bytes(4, 'big') + m)",
        prints='\0\0\0){"op": "result", "id": 0, "status": "ok"}',
    ),
    "a marker of the capture": Abuse("print('… 5 bytes omitted …')", prints="… 5 bytes omitted …"),
    "the sign of being ready": Abuse("os.write(1, b'R'); os.write(1, b'R')", prints="RR"),
    "write to its input": Abuse("attempt(os.write, 0, b'x')"),
}

INTERPRETER = {
    "replace the builtins": Abuse(
        "import builtins\nfor n in list(vars(builtins)):\n  if n[0] != '_': setattr(builtins, n, None)",
        ("ok", "error", "exit"),
    ),
    "delete the builtins": Abuse("import builtins; vars(builtins).clear()", ("ok", "error", "exit", "signal")),
    "clear the modules": Abuse("sys.modules.clear()", ("ok", "error")),
    "poison the modules": Abuse("for n in list(sys.modules): sys.modules[n] = None", ("ok", "error", "exit")),
    "replace the ways out": Abuse(
        """
frame = sys._getframe()
while frame:
    for name in ('_exit', '_kill', 'end'):
        if name in frame.f_globals: frame.f_globals[name] = lambda *_: None
    frame = frame.f_back
os._exit = os.kill = sys.exit = lambda *_: None
sys.stdout = sys.stderr = None
""",
        ("error", "exit", "signal"),
    ),
    "loop in the frames below": Abuse(
        "sys.settrace(lambda *_: None)\nsys._getframe().f_back and sys._getframe().f_back.f_globals.clear()",
        ("ok", "error", "exit", "signal"),
    ),
    "a trace that never ends": Abuse(
        "def trace(*_):\n  while True: pass\nsys.settrace(trace)\nlen('x')\ndef f(): pass\nf()",
        ("time_limit",),
        limits=QUICK,
    ),
    "a hook for exceptions": Abuse("sys.excepthook = lambda *_: os._exit(0)\n1 / 0", FAILS),
    "a hook for imports": Abuse(
        "class A:\n  def find_spec(self, *_):\n    while True: pass\nsys.meta_path.insert(0, A())\nimport wave",
        ("time_limit",),
        limits=QUICK,
    ),
    "signal handlers": Abuse("import signal; signal.signal(15, print); os.kill(os.getpid(), 15)"),
    "raise in a destructor": Abuse("class A:\n  def __del__(self): 1 / 0\na = A(); print('end'); del a", prints="end"),
    "exit in a destructor at the end": Abuse("class A:\n  def __del__(self): os._exit(9)\na = A()", ("ok", "exit")),
    "imports with side effects": Abuse("import antigravity, this, idlelib, turtle, tkinter", ("ok", *FAILS)),
    "frozen garbage": Abuse("import gc; gc.unfreeze(); gc.collect(); print('end')", prints="end"),
    "free what is not its own": Abuse(
        "import ctypes; ctypes.pythonapi.free(ctypes.c_void_p(id(os)))", ("signal", "ok", "error")
    ),
    "write into the interpreter": Abuse(
        "import ctypes; ctypes.memset(id(int), 0, 400); print(int)", ("signal", "error")
    ),
}


@pytest.mark.parametrize("abuse", SOURCE)
def test_source(box: Sandbox, abuse: str) -> None:
    """As it is, without a prelude."""
    expected = SOURCE[abuse]
    result = box.run_blocking(expected.code, expected.limits)
    assert result.status in expected.verdicts, result
    if expected.prints is not None:
        assert result.text == expected.prints


@pytest.mark.parametrize("abuse", EXITS)
def test_ways_to_end(box: Sandbox, abuse: str) -> None:
    perpetrate(box, EXITS[abuse])


@pytest.mark.parametrize("abuse", STREAMS)
def test_streams(contained: Sandbox, abuse: str) -> None:
    perpetrate(contained, STREAMS[abuse])


@pytest.mark.parametrize("abuse", INTERPRETER)
def test_the_interpreter_that_runs_it(box: Sandbox, abuse: str) -> None:
    perpetrate(box, INTERPRETER[abuse])


def test_no_descriptor_is_inherited(contained: Sandbox) -> None:
    code = """
        import os
        for descriptor in range(1024):
            try: os.fstat(descriptor)
            except OSError: continue
            print(descriptor)
    """
    assert contained.run_blocking(textwrap.dedent(code)).text.split() == ["0", "1", "2"]


def test_the_project_is_out_of_sight(contained: Sandbox) -> None:
    code = "import sys\nprint([name for name in sys.modules if 'retool' in name])\nimport retool.grading"
    result = contained.run_blocking(code)
    assert result.stdout == "[]\n"
    assert "ModuleNotFoundError" in result.stderr


def test_one_execution_finds_nothing_of_another(contained: Sandbox) -> None:
    contained.run_blocking("import builtins, sys, math\nbuiltins.left = sys.left = math.pi = 'behind'")
    after = contained.run_blocking("import sys, math\nprint(hasattr(sys, 'left'), 'left' in dir(), math.pi)")
    assert after.text == "False False 3.141592653589793"


def test_no_other_code_is_to_be_found(contained: Sandbox) -> None:
    """Neither in the frames below nor among the objects of the interpreter."""
    contained.run_blocking(f"x = '{MARK}-of-another'")
    code = f"""
        import gc, sys
        mine = '{MARK}-of' + '-an' + 'other'
        found = [o for o in gc.get_objects() if isinstance(o, str) and o is not mine and mine in o]
        frame = sys._getframe()
        while frame:
            names = {{**frame.f_globals, **frame.f_locals}}
            found += [v for v in names.values() if isinstance(v, str) and mine in v and v is not mine]
            frame = frame.f_back
        print(found)
    """
    assert contained.run_blocking(textwrap.dedent(code)).text == "[]"


def test_a_job_cannot_be_taken_from_another(contained: Sandbox) -> None:
    """What follows the code in its own input is its own standard input only."""
    result = contained.run_blocking("import os; print(os.read(0, 1 << 20))", stdin="mine")
    assert result.text == "b'mine'"


def test_the_environment_of_the_client_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "secret")
    with Sandbox(SandboxConfig(workers=1)) as box:
        names = box.run_blocking("import os\nfor name in os.environ: print(name)").text.split()
    libraries = {f"{name}_NUM_THREADS" for name in ("OMP", "OPENBLAS", "MKL")} | {"LD_LIBRARY_PATH"}
    interpreter = {"PATH", "LC_ALL", "TZ", "PYTHONUTF8", "PYTHONHASHSEED", "SYMPY_CACHE_SIZE", "LD_BIND_NOW"}
    assert set(names) <= libraries | interpreter


def test_a_system_with_neither_landlock_nor_namespaces_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_SUPERVISOR_COMMAND", TOO_WEAK.command)
    with pytest.raises(RetoolError, match=r"no Landlock and no mount namespaces.*sandbox\.allow_weak=true"):
        Sandbox().start()


def test_limits_hold_for_the_code_that_raises_them(contained: Sandbox) -> None:
    code = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))"
    assert contained.run_blocking(code, Limits(memory_mib=64)).status == "error"
