"""`retool eval`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

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
from retool.errors import UsageError


@click.command(
    "eval",
    help=documented(
        "Evaluate a model: k samples of each problem, graded, with intervals; every sample is kept. Or, with "
        "--outputs, grade what another system has written."
    ),
)
@config_argument
@click.option("--model", help="Hugging Face id or folder of the model; not with eval.endpoint.")
@click.option(
    "--data",
    help="Problems: a file, a named set (aime24, gsm8k, …), a Hugging Face id, or `puzzles`; several with commas.",
)
@mapping_option
@limit_option
@click.option("--protocol", type=click.Choice(["tags", "native", "fenced", "text"]), help="How calls are written.")
@click.option("--interpreter", type=click.Choice(["on", "off"]), help="off: same prompt, a call is never opened.")
@click.option("--calls", help="A sweep: one evaluation for each number of calls, such as 0,1,2,4,8 (eval.calls).")
@click.option("--samples", type=click.IntRange(min=1), help="Responses per problem.")
@click.option(
    "--outputs",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Grade these texts instead: JSONL rows with problem, answer and output (a text or a list of texts).",
)
@seed_option
@out_option
def evaluate(
    config: tuple[str, ...],
    model: str | None,
    data: str | None,
    mapping: str | None,
    limit: int | None,
    protocol: str | None,
    interpreter: str | None,
    calls: str | None,
    samples: int | None,
    outputs: Path | None,
    seed: int | None,
    out: Path,
) -> None:
    if outputs is not None:
        if config or any((model, data, mapping, limit, protocol, interpreter, calls, samples)):
            raise UsageError("--outputs grades texts that are there: only --seed and --out go with it")
        from retool.stages.eval.outputs import grade_outputs

        _show(grade_outputs(outputs, out, seed or 0), out)
        return
    if data is None:
        raise UsageError("there is nothing to evaluate on: give --data, such as --data aime24,aime25, or --outputs")
    settings = load(
        (*config, f"eval.calls=[{calls}]") if calls else config,
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
    from retool.stages.eval.recipe import run_eval

    results = asyncio.run(run_eval(settings, problems, out))
    if settings.eval.calls is None:
        _show(results, out)
    else:
        _show_sweep(results, out)


def _show(results: dict[str, Any], out: Path) -> None:
    from retool.reporting import System, terminal_table
    from retool.stages.progress import console

    rows = {Path(results["model"]).name: results} | results.get("sets", {})
    console.print(terminal_table([System.from_json(name, row) for name, row in rows.items()]))
    if lost := results["lost"]:
        say(f"the sandbox lost {lost} responses, which count as wrong; the same command samples them again")
    if timeouts := results["timeouts"]:
        say(f"{timeouts} comparisons of answers took too long, and count as wrong")
    say(f"results: {out / 'results.json'}, every sample: {out / 'samples.jsonl'}")


def _show_sweep(sweep: dict[str, Any], out: Path) -> None:
    from retool.reporting import System, terminal_table
    from retool.stages.progress import console

    console.print(terminal_table([System.from_json(f"{row['calls']} calls", row) for row in sweep["by_calls"]]))
    for row in sweep["by_calls"]:
        if gain := row["gain"]:
            low, high = gain["ci95"]
            say(f"{row['calls']} calls: {gain['difference']:+.3f} ({low:+.3f}..{high:+.3f}), p = {gain['p_value']:.2g}")
    say(f"results: {out / 'sweep.json'}, every evaluation: {out / 'calls-N'}")
