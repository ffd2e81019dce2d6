"""`retool synth`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import click

from retool.cli.options import (
    config_argument,
    documented,
    limit_option,
    load,
    mapping_option,
    model_option,
    out_option,
    say,
    seed_option,
)


@click.command(help=documented("Make cold-start traces: rewrite worked solutions into code, run it, verify, report."))
@config_argument
@click.option("--source", help="Worked solutions: a file, a named set, or `puzzles` (data.train).")
@mapping_option
@limit_option
@click.option(
    "--rewrite",
    type=click.Choice(["rules", "teacher", "harvest"]),
    help="Where the code comes from: rules, a model behind an endpoint (synth.teacher), or --model's own rollouts.",
)
@model_option
@click.option("--decontaminate", multiple=True, help="Evaluation set that must not be among the sources; repeatable.")
@seed_option
@out_option
def synth(
    config: tuple[str, ...],
    source: str | None,
    mapping: str | None,
    limit: int | None,
    rewrite: str | None,
    model: str | None,
    decontaminate: tuple[str, ...],
    seed: int | None,
    out: Path,
) -> None:
    sets = [f"synth.decontaminate={json.dumps(decontaminate)}"] if decontaminate else []  # JSON is YAML
    settings = load(
        [*config, *sets],
        data__train=source,
        data__mapping=mapping,
        data__limit=limit,
        synth__rewrite=rewrite,
        model__path=model,
        seed=seed,
    )
    from retool.stages.sources import load_sources
    from retool.stages.synth import synthesize

    loaded = load_sources(settings)
    report = asyncio.run(synthesize(settings, loaded.rows, out, loaded.report))
    say(f"{report.accepted} traces of {report.sources} solutions: {out / 'traces.jsonl'}")
    for reason, count in report.rejected.most_common(3):
        say(f"  {count} rejected: {reason.meaning}")
