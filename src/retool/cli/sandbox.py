"""`retool sandbox …`: the sandbox on its own, for a file or as a server."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import sys
import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from retool.config.load import load_config
from retool.config.sandbox import Limits, SandboxConfig
from retool.errors import UsageError
from retool.sandbox import Result, Sandbox, describe_isolation
from retool.types import CallStatus

_STDIN = Path("-")
_ALL_OUTPUT = 1 << 24  # the most that can be kept: what is printed here is read by a person or a pipe, not by a model
_EXIT_CODES = {
    CallStatus.TIME_LIMIT: 124,
    CallStatus.SANDBOX_ERROR: 125,
    CallStatus.OVERLOAD: 125,
    CallStatus.MEMORY_LIMIT: 137,
    CallStatus.OUTPUT_LIMIT: 137,
}

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


@click.group()
def sandbox() -> None:
    """Run code in the sandbox without a model: a file, or for other programs over HTTP."""


def _limit_options(**defaults: int) -> Callable[[CommandT], CommandT]:
    """An option for each of the limits."""

    def decorate(command: CommandT) -> CommandT:
        for name, field in reversed(Limits.model_fields.items()):
            command = click.option(
                f"--{name.replace('_', '-')}",
                type=field.annotation,
                default=defaults.get(name, field.default),
                show_default=True,
                help=field.description,
            )(command)
        return command

    return decorate


_weak_option = click.option("--allow-weak", is_flag=True, help="Run even where the system cannot contain the code.")


def _config(**settings: Any) -> SandboxConfig:
    """Checked as the config's section is, with the same messages."""
    given = {name: value for name, value in settings.items() if value is not None}
    return load_config(SandboxConfig, None, [f"{name}={str(value).lower()}" for name, value in given.items()])


@sandbox.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option(
    "--stdin",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="What the program reads from its standard input; - is that of this command  [default: nothing]",
)
@click.option("--echo", is_flag=True, help="Print the value of a last expression, as a notebook does.")
@click.option("--key", help="Seed of everything random in the program.")
@_weak_option
@_limit_options(output_bytes=_ALL_OUTPUT)
def run(file: Path, stdin: Path | None, echo: bool, key: str | None, allow_weak: bool, **limits: Any) -> None:
    """Run the Python program FILE (-: standard input) in the sandbox.

    Standard output, standard error and the exit code are those that Python's own would be: 1 after an exception, n
    after sys.exit(n), 128 + n after signal n. Besides, with the reason as the last line of standard error: 124 after a
    limit of time, 137 after one of memory or output, 125 if the sandbox itself failed.
    """
    if file == stdin == _STDIN:
        raise UsageError("the program and what it reads cannot both come from standard input: give one as a file")
    config = _config(workers=1, allow_weak=allow_weak, **limits)
    code = _source(_read(file), file)
    text = _read(stdin).decode("utf-8", "surrogateescape") if stdin else ""  # any bytes reach the program as they are
    with Sandbox(config) as box:
        result = box.run_blocking(code, key=key, stdin=text, echo=echo)
    _print(result)
    sys.exit(_exit_code(result))


@sandbox.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address; other than loopback asks for --token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: a free one.")
@click.option(
    "--token",
    envvar="RETOOL_SANDBOX_TOKEN",
    show_envvar=True,
    help="What clients must send as `Authorization: Bearer TOKEN`; in the environment it does not show up in ps.",
)
@click.option("--queue", type=click.IntRange(min=0), default=1024, show_default=True, help="Requests that may wait.")
@click.option("--workers", type=int, help="Executions at the same time  [default: half of the cores, at least 2]")
@click.option(
    "--drain",
    type=click.FloatRange(min=0),
    default=25.0,
    show_default=True,
    help="Seconds that requests have to end after SIGTERM.",
)
@_weak_option
@_limit_options()
def serve(
    host: str,
    port: int,
    token: str | None,
    queue: int,
    workers: int | None,
    drain: float,
    allow_weak: bool,
    **limits: Any,
) -> None:
    """Serve the sandbox over HTTP until SIGTERM or Ctrl-C.

    POST /run_code takes and answers what SandboxFusion does, POST /v1/run what the Python API does; GET /health and
    GET /metrics (Prometheus). The header X-Trajectory-Id makes trajectories take turns; without it, connections do.
    The limits are those of requests that name none.
    """
    config = _config(workers=workers, allow_weak=allow_weak, **limits)
    try:
        from retool.sandbox.service.server import serve as serve_sandbox
    except ModuleNotFoundError as error:
        raise UsageError(f"serving needs the library {error.name}: pip install 'retool[serve]'") from error

    def announce(text: str) -> None:
        click.echo(f"serving on {text}", err=True)

    serving = serve_sandbox(
        config, host=host, port=port, token=token, queue=queue, drain_seconds=drain, announce=announce
    )
    asyncio.run(serving)


@sandbox.command()
@click.option(
    "--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Repetitions; medians are shown."
)
@click.option("--workers", type=int, help="Executions at the same time  [default: half of the cores, at least 2]")
@_weak_option
def bench(rounds: int, workers: int | None, allow_weak: bool) -> None:
    """Measure the sandbox next to a fresh interpreter for each piece of code; takes about 10 seconds a round.

    The last line is a JSON object with the same figures.
    """
    from retool.sandbox.benchmark import measure

    with Sandbox(_config(workers=workers, allow_weak=allow_weak)) as box:
        click.echo(describe_isolation(box.isolation))
        speeds = measure(box, rounds)
    for speed in speeds:
        click.echo(
            f"{speed.snippet}: {speed.per_second:.0f}/s at concurrency 64, {speed.ratio:.1f} times python -c "
            f"({speed.fresh_per_second:.1f}/s); {speed.unloaded_ms:.1f} ms one at a time"
        )
    click.echo(json.dumps({speed.snippet: speed._asdict() | {"ratio": speed.ratio} for speed in speeds}))


def _read(path: Path) -> bytes:
    if path == _STDIN:
        return click.get_binary_stream("stdin").read()
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _source(program: bytes, file: Path) -> str:
    """Decoded as Python does it: by its byte-order mark or coding line, else as UTF-8."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(program).readline)
        return program.decode(encoding)
    except (SyntaxError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not a Python program: {error}") from error


def _print(result: Result) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end like any program whose reader has gone
    stdout, stderr = click.get_binary_stream("stdout"), click.get_binary_stream("stderr")
    stdout.write(result.stdout.encode())
    stdout.flush()
    stderr.write(result.stderr.encode())
    if result.reason and result.status is not CallStatus.EXIT:
        if result.stderr and not result.stderr.endswith("\n"):
            stderr.write(b"\n")
        stderr.write(f"retool: {result.reason}\n".encode())
    stderr.flush()


def _exit_code(result: Result) -> int:
    if result.status in _EXIT_CODES:
        return _EXIT_CODES[result.status]
    assert result.exit_code is not None, result
    return result.exit_code if result.exit_code >= 0 else 128 - result.exit_code
