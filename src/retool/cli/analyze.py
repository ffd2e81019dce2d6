"""`retool analyze`."""

from __future__ import annotations

from pathlib import Path

import click

from retool.cli.options import load, say


@click.command(
    help="How models use the interpreter: behaviour curves, self-corrections, purposes of code, what calling gains and "
    "costs, and who wins where on the same problems.\n\nRUN is a run, an evaluation, or a JSONL file: of trajectories, "
    "or of another system's texts (`problem`, `answer`, `output`). KEY=VALUE overrides a setting, such as "
    "analyze.judge.url=http://127.0.0.1:8000/v1 and analyze.judge.model=NAME for a model's opinion on the purposes.\n\n"
    "Without --out the analysis is printed as JSON."
)
@click.argument("runs", nargs=-1, required=True, metavar="RUN... [KEY=VALUE]...")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for analysis.json and tables/.")
def analyze(runs: tuple[str, ...], out: Path | None) -> None:
    import json

    overrides = [word for word in runs if "=" in word and not Path(word).exists()]
    paths = [Path(word) for word in runs if word not in overrides]
    if not paths:
        raise click.UsageError("name at least one run, evaluation or JSONL file")
    for path in paths:
        if not path.exists():
            raise click.UsageError(f"there is no file or folder {path}")
    config = load(overrides).analyze

    from retool.stages.analyze.recipe import analyze_runs

    found = analyze_runs(paths, out, config)
    if out is None:
        click.echo(json.dumps(found, indent=2))
    else:
        say(f"analysis: {out / 'analysis.json'}, tables: {out / 'tables'}")
