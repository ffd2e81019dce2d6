"""`retool solve`."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import click

from retool.cli.options import config_argument, documented, load, model_option, seed_option
from retool.config.load import presets
from retool.config.notation import parse
from retool.errors import UsageError


@click.command(
    help=documented(
        "Answer one question: the reasoning, the code and its results are shown as they come, then the answer. "
        "QUESTION is the last argument; - reads it from the standard input.\n\nWithout a CONFIG, a checkpoint in a "
        "run's folder is prompted as that run has prompted it."
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
    names_config = bool(config) and "=" not in config[0]
    if names_config and config[0] not in presets() and not Path(config[0]).is_file():
        raise UsageError(
            f"there is no preset and no file {config[0]!r}; if it is the question, name it last, after any KEY=VALUE"
        )
    words = config if names_config else (*_settings_of_run(model), *config)
    settings = load(words, model__path=model, protocol__name=protocol, eval__interpreter=interpreter, seed=seed)
    if question == "-":
        question = sys.stdin.read()
    from rich.console import Console

    from retool.stages.solve.recipe import solve as answer
    from retool.stages.solve.views import PlainView, TerminalView

    view = TerminalView(Console(highlight=False)) if sys.stdout.isatty() else PlainView(sys.stdout)
    asyncio.run(answer(settings, question.strip(), view, transcript))


def _settings_of_run(model: str | None) -> list[str]:
    """Prompt, protocol and budgets of the run that wrote a checkpoint: asked in another way, it is another model."""
    folder = Path(model or "").absolute().parent
    path = folder.parent / "config.yaml"
    if model is None or folder.name != "checkpoints" or not path.is_file():
        return []
    values = parse(path.read_text(encoding="utf-8"), str(path)) or {}
    return [f"{section}={json.dumps(values[section])}" for section in ("protocol", "rollout") if section in values]
