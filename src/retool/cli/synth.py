"""`retool synth`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from retool.cli.options import (
    config_argument,
    documented,
    limit_option,
    load,
    mapping_option,
    out_option,
    say,
    seed_option,
)


@click.command(help=documented("Make cold-start traces: rewrite worked solutions into code, run it, verify, report."))
@config_argument
@click.option("--source", help="Worked solutions: a file, a named set, or `puzzles` (data.train).")
@mapping_option
@limit_option
@seed_option
@out_option
def synth(
    config: tuple[str, ...],
    source: str | None,
    mapping: str | None,
    limit: int | None,
    seed: int | None,
    out: Path,
) -> None:
    settings = load(config, data__train=source, data__mapping=mapping, data__limit=limit, seed=seed)
    from retool.stages.sources import load_training
    from retool.stages.synth import synthesize

    report = asyncio.run(synthesize(settings, load_training(settings), out))
    say(f"{report.accepted} traces of {report.sources} solutions: {out / 'traces.jsonl'}")
