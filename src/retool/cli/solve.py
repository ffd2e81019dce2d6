"""`retool solve`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from retool.cli.options import config_argument, documented, load, model_option, seed_option


@click.command(
    help=documented(
        "Answer one question: the reasoning, the code and its results are shown as they come, then the answer. "
        "QUESTION is the last argument; - reads it from the standard input."
    )
)
@config_argument
@click.argument("question")
@model_option
@click.option("--protocol", type=click.Choice(["tags", "native", "fenced", "text"]), help="How calls are written.")
@click.option("--interpreter", type=click.Choice(["on", "off"]), help="off: same prompt, a call is never opened.")
@click.option(
    "--transcript",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write it down as well: .md for people, .json or .jsonl as a trajectory.",
)
@seed_option
def solve(
    config: tuple[str, ...],
    question: str,
    model: str | None,
    protocol: str | None,
    interpreter: str | None,
    transcript: Path | None,
    seed: int | None,
) -> None:
    settings = load(config, model__path=model, protocol__name=protocol, eval__interpreter=interpreter, seed=seed)
    if question == "-":
        question = sys.stdin.read()
    from rich.console import Console

    from retool.stages.solve.recipe import solve as answer
    from retool.stages.solve.views import PlainView, TerminalView

    view = TerminalView(Console(highlight=False)) if sys.stdout.isatty() else PlainView(sys.stdout)
    asyncio.run(answer(settings, question.strip(), view, transcript))
