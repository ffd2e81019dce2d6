"""`retool cluster …`: what a run over several machines needs."""

from __future__ import annotations

import json
import sys

import click

from retool.cli.options import config_argument, documented, load


@click.group()
def cluster() -> None:
    """Plan a run over several machines: what goes where, and whether it fits."""


@cluster.command(
    help=documented(
        "Say which process goes to which GPU, what the memory of each is filled with, and how long a step takes. "
        "Nothing is started; neither Ray nor GPUs are needed. Exit code 2 if it does not fit."
    )
)
@config_argument
@click.option("--json", "as_json", is_flag=True, help="As one JSON object, in bytes, FLOPs and seconds.")
@click.option(
    "--tokens",
    type=click.IntRange(min=1),
    help="Mean tokens of a response, for the seconds  [default: half of rollout.max_tokens]",
)
def plan(config: tuple[str, ...], as_json: bool, tokens: int | None) -> None:
    settings = load(config)
    from retool.cluster.describe import tables, to_json
    from retool.cluster.plan import make_plan

    made = make_plan(settings, mean_tokens=tokens)
    if as_json:
        click.echo(json.dumps(to_json(made), indent=1))
    else:
        from rich.console import Console
        from rich.text import Text

        console = Console(highlight=False)
        for part in tables(made):
            console.print(part, soft_wrap=isinstance(part, Text))
            console.print()
    sys.exit(0 if made.fits else 2)
