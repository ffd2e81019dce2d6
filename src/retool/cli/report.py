"""`retool report`."""

from __future__ import annotations

from pathlib import Path

import click

from retool.cli.options import say


@click.command(help="Write one self-contained HTML report of runs and evaluations (folders).")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=Path("report.html"), show_default=True)
def report(runs: tuple[Path, ...], out: Path) -> None:
    from retool.stages.report import report_runs

    report_runs(runs, out)
    say(f"report: {out}")
