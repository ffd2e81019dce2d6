"""`retool analyze`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(help="Compute the behaviour curves of runs, or the behaviour of evaluations, as JSON.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
def analyze(runs: tuple[Path, ...]) -> None:
    import json

    from retool.stages.analyze import analyze_runs

    click.echo(json.dumps(analyze_runs(runs), indent=2))
