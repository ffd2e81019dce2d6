"""What a program is given besides its code: standard input, and an echo of its last expression."""

import pytest

from retool.sandbox import Limits, Sandbox, SandboxConfig


@pytest.mark.parametrize(
    ("code", "stdin", "output"),
    [
        ("print(input())", "line\n", "line"),
        ("print(input(), input())", "first\nsecond\n", "first second"),
        ("import sys; print(sys.stdin.read())", "all\nof it", "all\nof it"),
        ("import sys; print([line for line in sys.stdin])", "a\nb\n", "['a\\n', 'b\\n']"),
        ("import sys; print(len(sys.stdin.buffer.read()))", "é€😀", "9"),
        ("import sys; print(ascii(sys.stdin.read()))", "\udcff\0\r", "'\\udcff\\x00\\n'"),
        ("import os; print(os.read(0, 99))", "raw", "b'raw'"),
        ("print(open(0).read())", "by number", "by number"),
        ("print(sum(map(int, input().split())))", "1 2 3", "6"),
        ("import sys; print(repr(sys.stdin.read()))", "", "''"),
        ("try: input()\nexcept EOFError: print('end')", "", "end"),
        ("print('unread')", "never looked at", "unread"),
        ("import sys; sys.stdin.close(); print('closed')", "x", "closed"),
        ("import sys; print(sys.stdin.isatty(), sys.stdin.fileno(), sys.stdin.encoding)", "x", "False 0 utf-8"),
    ],
)
def test_a_program_reads_its_input(box: Sandbox, code: str, stdin: str, output: str) -> None:
    result = box.run_blocking(code, stdin=stdin)
    assert (result.status, result.text) == ("ok", output)


def test_an_input_larger_than_any_pipe_arrives_whole(box: Sandbox) -> None:
    lines = "".join(f"{n}\n" for n in range(300_000))
    code = "import sys; lines = sys.stdin.read().split(); print(len(lines), lines[-1])"
    assert box.run_blocking(code, stdin=lines).text == "300000 299999"


@pytest.mark.parametrize("code", ["print('end')", "import os; os.close(0); print('end')", "input(); print('end')"])
def test_a_large_input_that_is_not_read_keeps_nobody_waiting(box: Sandbox, code: str) -> None:
    assert box.run_blocking(code, stdin="line\n" * 1_000_000).text == "end"


def test_a_program_that_waits_for_more_input_than_there_is_meets_the_end(box: Sandbox) -> None:
    result = box.run_blocking("input(); input()", stdin="only one")
    assert result.status == "error"
    assert result.text.endswith("EOFError: EOF when reading a line")


def test_code_and_input_do_not_run_into_each_other(box: Sandbox) -> None:
    assert box.run_blocking("print('code')", stdin="print('input')\n").text == "code"
    code = "x = input(); print(len(x), set(x))  #" + "x" * 200_000
    assert box.run_blocking(code, stdin="é" * 100_000).text == "100000 {'é'}"


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("1 + 1", "2"),
        ("x = 2\nx * 3", "6"),
        ("'text'", "'text'"),
        ("None", ""),
        ("x = 5", ""),
        ("print('x')", "x"),
        ("print('x')\n7", "x\n7"),
        ("1; 2; 3", "3"),
        ("x = 1; x", "1"),
        ("5;", "5"),
        ("(1,\n 2,\n 3)", "(1, 2, 3)"),
        ("'''a\nb'''", "'a\\nb'"),
        ("5  # five", "5"),
        ("5\n\n# the end\n", "5"),
        ("if True:\n    5", ""),
        ("for n in range(3): n", ""),
        ("def f():\n    5\nf", "<function f at"),
        ("[n for n in range(3)]", "[0, 1, 2]"),
        ("(n := 4)", "4"),
        ("lambda: 0", "<function <lambda>"),
        ("1\n2\nx = 3", ""),
        ("5\nimport math", ""),
        ("_ = 3\n_", "3"),
        ("from fractions import Fraction\nFraction(1, 3)", "Fraction(1, 3)"),
        ("from __future__ import annotations\n1", "1"),
        ("", ""),
        ("# nothing", ""),
        ("'\\ud800'", "'\\ud800'"),
        ("import sympy\nsympy.sqrt(8)", "2*sqrt(2)"),
    ],
)
def test_the_value_of_a_last_expression_is_echoed(box: Sandbox, code: str, output: str) -> None:
    result = box.run_blocking(code, echo=True)
    assert result.status == "ok"
    assert result.text.startswith(output) if output.startswith("<") else result.text == output


@pytest.mark.parametrize("code", ["1 + 1", "x = 2\nx * 3", "'text'"])
def test_without_asking_nothing_is_echoed(box: Sandbox, code: str) -> None:
    assert box.run_blocking(code).text == ""


@pytest.mark.parametrize("code", ["if x", "x = = 1", "1 +", "(" * 5000, "print('\0')", "def f(:\n  1\n5"])
def test_a_syntax_error_is_told_the_same_with_an_echo(box: Sandbox, code: str) -> None:
    plain, echoed = box.run_blocking(code), box.run_blocking(code, echo=True)
    assert plain.status == echoed.status == "error"
    assert echoed.text == plain.text


def test_a_failing_echo_is_an_error_of_the_code(box: Sandbox) -> None:
    result = box.run_blocking("class A:\n    def __repr__(self):\n        return 1 / 0\nA()", echo=True)
    assert result.status == "error"
    assert result.text.splitlines()[0] == "Traceback (most recent call last):"
    assert [line for line in result.text.splitlines() if "File" in line] == [
        '  File "main.py", line 4, in <module>',
        '  File "main.py", line 3, in __repr__',
    ]


def test_an_exception_before_the_last_expression_echoes_nothing(box: Sandbox) -> None:
    result = box.run_blocking("1 / 0\n5", echo=True)
    assert (result.status, result.stdout) == ("error", "")


def test_lines_of_a_traceback_are_right_with_an_echo(box: Sandbox) -> None:
    result = box.run_blocking("x = 0\n\n(5 /\n x)", echo=True)
    assert 'File "main.py", line 3, in <module>\n    (5 /\n' in result.text


@pytest.mark.parametrize("limit", [64, 65, 1000])
def test_output_up_to_the_cap_is_kept_whole_and_one_byte_more_is_not(box: Sandbox, limit: int) -> None:
    limits = Limits(output_bytes=limit)
    assert box.run_blocking(f"print('x' * {limit}, end='')", limits).stdout == "x" * limit
    longer = box.run_blocking(f"print('x' * {limit + 1}, end='')", limits).stdout
    assert longer == f"{'x' * -(-limit // 2)}\n… 1 bytes omitted …\n{'x' * (limit // 2)}"


def test_a_call_without_limits_has_those_of_the_config() -> None:
    with Sandbox(SandboxConfig(workers=1, cpu_seconds=0.1, output_bytes=64)) as box:
        assert box.run_blocking("while True: pass").reason.startswith(
            "TimeLimitExceeded: the code used more than 0.1 s"
        )
        assert len(box.run_blocking("print('x' * 1000)").stdout) < 100
        generous = Limits(cpu_seconds=2.0)
        assert box.run_blocking("import time\nwhile time.process_time() < 0.3: pass", generous).status == "ok"


def test_idle_time_and_cpu_time_are_limited_apart(box: Sandbox) -> None:
    busy, idle = Limits(cpu_seconds=0.1, idle_seconds=3.0), Limits(cpu_seconds=3.0, idle_seconds=0.1)
    sleep, loop = "import time; time.sleep(0.3)", "import time\nwhile time.process_time() < 0.3: pass"
    statuses = [box.run_blocking(code, limits).status for limits in (busy, idle) for code in (sleep, loop)]
    assert statuses == ["ok", "time_limit", "time_limit", "ok"]
