"""`retool quickstart`, `sft` and `rl`."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
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
    overrides_argument,
    say,
    seed_option,
)
from retool.config.schema import Config
from retool.errors import UsageError


@click.command(
    help="ReTool in miniature: from generated problems to a trained model and its report, on this machine's CPU."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of everything random.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Folder of the run [runs/quickstart-seedN]."
)
@overrides_argument
def quickstart(seed: int, out: Path | None, overrides: tuple[str, ...]) -> None:
    from retool.stages.quickstart import run_quickstart

    run_quickstart(load(["nano", *overrides], seed=seed), out or Path("runs") / f"quickstart-seed{seed}")


@click.command(help=documented("Fine-tune on cold-start traces; interpreter tokens are masked from the loss."))
@config_argument
@click.option("--traces", type=click.Path(path_type=Path), required=True, help="JSONL file of `retool synth`.")
@model_option
@seed_option
@out_option
def sft(config: tuple[str, ...], traces: Path, model: str | None, seed: int | None, out: Path) -> None:
    settings = load(config, model__path=model, seed=seed)
    if not traces.is_file():
        raise UsageError(f"there is no file {traces}; `retool synth` makes traces")
    from retool.stages.training.sft import run_sft

    say(f"trained: {run_sft(settings, traces, out)}")


@click.command(help=documented("Train by PPO, GRPO, … with code execution inside the rollout."))
@config_argument
@model_option
@click.option("--data", help="Problems to train on: a file, a named set, or `puzzles` (data.train).")
@click.option("--heldout", help="Problems to evaluate on (data.heldout).")
@mapping_option
@limit_option
@seed_option
@out_option
@click.option(
    "--cluster",
    metavar="ADDRESS",
    help="Run as a job on the Ray cluster there (auto: the one of RAY_ADDRESS or of this machine), which goes on when "
    "this terminal is closed; the same command follows it again.",
)
def rl(
    config: tuple[str, ...],
    model: str | None,
    data: str | None,
    heldout: str | None,
    mapping: str | None,
    limit: int | None,
    seed: int | None,
    out: Path,
    cluster: str | None,
) -> None:
    settings = load(
        config,
        model__path=model,
        data__train=data,
        data__heldout=heldout,
        data__mapping=mapping,
        data__limit=limit,
        seed=seed,
    )
    if settings.model.path is None:
        raise UsageError(
            "RL starts from a model that can already answer: give --model, such as a checkpoint of `retool sft`"
        )
    if cluster is not None:
        _run_as_job(settings, out, cluster)
        return
    from retool.stages.sources import load_split

    rows, heldout_problems = load_split(settings)
    arm = "text-only" if settings.protocol.name == "text" else "ReTool"
    run = settings, [problem for problem, _ in rows], heldout_problems, out, arm
    if settings.cluster is not None:
        _check_ray()
        from retool.stages.cluster.launch import run_on_cluster

        say(f"trained: {run_on_cluster(*run)}")
        return
    from retool.stages.training.rl import run_rl

    say(f"trained: {asyncio.run(run_rl(*run))}")


def _run_as_job(settings: Config, out: Path, address: str) -> None:
    if settings.cluster is None:
        raise UsageError(
            "--cluster runs what the config's section `cluster` describes, and this config has none: set, say, "
            "cluster.learners=1 cluster.samplers=2"
        )
    _check_ray()
    from retool.stages.cluster.jobs import run_as_job

    run_as_job(settings, out, address)


def _check_ray() -> None:
    if find_spec("ray") is None:
        raise UsageError("a run with a section `cluster` needs Ray: pip install 'retool[cluster]'")
