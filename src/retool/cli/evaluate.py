"""`retool eval`."""

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


@click.command(
    "eval",
    help=documented("Evaluate a model: k samples of each problem, graded, with intervals; every sample is kept."),
)
@config_argument
@click.option("--model", required=True, help="Hugging Face id or folder of the model.")
@click.option(
    "--data", required=True, help="Problems: a file, a named set (aime24, gsm8k, …), a Hugging Face id, or `puzzles`."
)
@mapping_option
@limit_option
@click.option("--protocol", type=click.Choice(["tags", "native", "fenced", "text"]), help="How calls are written.")
@click.option("--interpreter", type=click.Choice(["on", "off"]), help="off: same prompt, a call is never opened.")
@click.option("--samples", type=click.IntRange(min=1), help="Responses per problem.")
@seed_option
@out_option
def evaluate(
    config: tuple[str, ...],
    model: str,
    data: str,
    mapping: str | None,
    limit: int | None,
    protocol: str | None,
    interpreter: str | None,
    samples: int | None,
    seed: int | None,
    out: Path,
) -> None:
    settings = load(
        config,
        model__path=model,
        data__heldout=data,
        data__mapping=mapping,
        data__heldout_limit=limit,
        protocol__name=protocol,
        eval__interpreter=interpreter,
        eval__samples=samples,
        seed=seed,
    )
    from retool.stages.sources import load_heldout

    problems = load_heldout(settings)
    from retool.reporting import System, terminal_table
    from retool.stages.eval import run_eval
    from retool.stages.progress import console

    results = asyncio.run(run_eval(settings, problems, out))
    console.print(terminal_table([System.from_json(Path(model).name, results)]))
    say(f"results: {out / 'results.json'}, every sample: {out / 'samples.jsonl'}")
