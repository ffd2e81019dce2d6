"""The two kinds of errors that a user can meet, and the exit codes that stand for them."""


class RetoolError(Exception):
    """Something failed at run time. The message is one sentence that says what to do; exit code 1."""

    exit_code = 1


class UsageError(RetoolError):
    """The command line, the config or the data is wrong. The message says what was found and expected; exit code 2."""

    exit_code = 2


def first_line(error: BaseException) -> str:
    """What another library's error says, for a sentence of one's own: without a message, the name of its class."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
