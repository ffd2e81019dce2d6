"""`retool report`."""

from __future__ import annotations

from pathlib import Path

import click

from retool.cli.options import say


@click.command(
    help="Write one self-contained HTML report of runs, evaluations (folders) and trajectories (JSONL files)."
)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=Path("report.html"), show_default=True)
@click.option("--title", help="Headline of the page.  [default: the names of RUNS]")
@click.option(
    "--max-mb",
    type=click.FloatRange(min=4),
    default=40,
    show_default=True,
    help="Size of the page: what does not fit is left out, and the page says so.",
)
def report(runs: tuple[Path, ...], out: Path, title: str | None, max_mb: float) -> None:
    from retool.stages.report.recipe import report_runs

    report_runs(runs, out, title, int(max_mb * 1e6))
    say(f"report: {out} ({out.stat().st_size / 1e6:.1f} MB)")
