"""`retool compare`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from retool.cli.options import say, seed_option


@click.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@seed_option
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the comparison as JSON, too.")
def compare(first: Path, second: Path, seed: int | None, out: Path | None) -> None:
    """Compare two evaluations on the problems that both have: the paired difference, its interval and p-value.

    FIRST and SECOND are folders of `retool eval`, or files of trajectories.
    """
    from retool.files import publish
    from retool.stages.compare.recipe import compare_evaluations
    from retool.stages.compare.table import comparison_lines

    found = compare_evaluations(first, second, seed or 0)
    for line in comparison_lines(found):
        click.echo(line)
    if out:
        publish(out, json.dumps(found, indent=2) + "\n")
        say(f"comparison: {out}")
