"""Where interpreters cannot be forked, each execution has one of its own: the same verdicts, and no containment."""

from collections.abc import Iterator

import pytest

from conftest import SHORT
from retool.sandbox import Sandbox, connection

_NOT_LINUX = "from retool.sandbox.containment import linux; linux.IS_LINUX = False\n"


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Sandbox]:
    """A sandbox whose supervisor takes this system for another one."""
    sandbox = Sandbox(SHORT.model_copy(update={"allow_weak": True}))
    with pytest.MonkeyPatch.context() as patch, pytest.warns(RuntimeWarning, match="only code that you trust"):
        patch.setattr(connection, "_SUPERVISOR_COMMAND", _NOT_LINUX + connection._SUPERVISOR_COMMAND)
        sandbox.start()
    with sandbox:
        yield sandbox


@pytest.mark.parametrize(
    ("code", "status", "text"),
    [
        ("print(6 * 7)", "ok", "42"),
        ("print(input())", "ok", "hello"),
        ("import sys; sys.exit(3)", "exit", "SystemExit: the code ended with exit code 3"),
        ("import os; os.abort()", "signal", "the code was ended by signal 6 (Aborted)"),
        ("while True: pass", "time_limit", "TimeLimitExceeded: the code used more than 0.5 s of CPU time"),
        ("import retool.grading", "error", "ModuleNotFoundError: No module named 'retool'"),
    ],
)
def test_an_execution_ends_with_the_verdict(elsewhere: Sandbox, code: str, status: str, text: str) -> None:
    result = elsewhere.run_blocking(code, stdin="hello")
    assert result.status == status
    assert result.text.splitlines()[-1] == text


def test_everything_random_follows_from_the_key(elsewhere: Sandbox) -> None:
    code = "import random, os; print(random.random(), random.Random().random(), os.urandom(4))"
    drawn = [elsewhere.run_blocking(code, key=key).text for key in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_session_is_refused_with_the_reason(elsewhere: Sandbox) -> None:
    result = elsewhere.session().run_blocking("x = 1")
    assert (result.status, result.text) == ("sandbox_error", "the session could not be opened: sessions need Linux")


def test_the_report_says_that_nothing_contains_the_code(elsewhere: Sandbox) -> None:
    assert elsewhere.isolation["refused"] == []
    assert "run only code that you trust" in elsewhere.isolation["weak"]
