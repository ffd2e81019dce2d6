"""`retool VERB …`. Torch is imported by the verbs that need it, when they run."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

import retool
from retool.cli.sandbox import sandbox
from retool.config.load import load_config, presets
from retool.config.schema import Config
from retool.errors import RetoolError, UsageError

_INTERRUPTED = 130  # what a shell reports for Ctrl-C


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(retool.__version__, prog_name="retool")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Teach language models when and how to call a Python interpreter in the middle of their reasoning.

    Start with `retool quickstart`: a tiny model learns it on this machine, in minutes, without a GPU.
    """


cli.add_command(sandbox)


def main() -> None:
    """Run the command line. Exit codes: 0, 1 (run time), 2 (usage, config, data), 130 (interrupted), 143 (SIGTERM, for
    which a training run saves; the other verbs take it as an interruption)."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background was started with it ignored
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # no threads behind the back of a process that may fork
    try:
        cli(standalone_mode=False, prog_name="retool")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("\ninterrupted; run the same command again to go on where it stopped", err=True)
        sys.exit(_INTERRUPTED)
    except RetoolError as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        click.echo(f"retool: {error}", err=True)
        sys.exit(error.exit_code)


_config_argument = click.argument("config", nargs=-1, metavar="[CONFIG] [KEY=VALUE]...")
_overrides_argument = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
_out_option = click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the run."
)
_model_option = click.option("--model", help="Hugging Face id or folder of the model (model.path).")
_seed_option = click.option("--seed", type=click.IntRange(min=0), help="Seed of everything random.")
_mapping_option = click.option(
    "--mapping", help="Columns of the data: gsm8k, dapo-math-17k, aime24, aime25, math-500, or problem=…,answer=…"
)
_limit_option = click.option("--limit", type=click.IntRange(min=1), help="Use the first N problems only.")

_CONFIG_HELP = (
    "CONFIG is a preset ({presets}) or a YAML file (none: the defaults); KEY=VALUE overrides a setting, "
    "such as rl.steps=20."
)


def _documented(text: str) -> str:
    return text + "\n\n" + _CONFIG_HELP.format(presets=", ".join(presets()))


def _load(words: Sequence[str], **settings: Any) -> Config:
    """The config from `[CONFIG] [KEY=VALUE]…`, with the options that were given as overrides on top."""
    source, overrides = (words[0], words[1:]) if words and "=" not in words[0] else (None, words)
    given = [f"{key.replace('__', '.')}={_quoted(value)}" for key, value in settings.items() if value is not None]
    return load_config(Config, source, [*overrides, *given])


def _quoted(value: Any) -> str:
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"


def _say(text: str) -> None:
    click.echo(text, err=True)


@cli.command(
    help="ReTool in miniature: from generated problems to a trained model and its report, on this machine's CPU."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of everything random.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Folder of the run [runs/quickstart-seedN]."
)
@_overrides_argument
def quickstart(seed: int, out: Path | None, overrides: tuple[str, ...]) -> None:
    from retool.stages.quickstart import run_quickstart

    run_quickstart(_load(["nano", *overrides], seed=seed), out or Path("runs") / f"quickstart-seed{seed}")


@cli.command(help=_documented("Make cold-start traces: rewrite worked solutions into code, run it, verify, report."))
@_config_argument
@click.option("--source", help="Worked solutions: a file, a named set, or `puzzles` (data.train).")
@_mapping_option
@_limit_option
@_seed_option
@_out_option
def synth(
    config: tuple[str, ...],
    source: str | None,
    mapping: str | None,
    limit: int | None,
    seed: int | None,
    out: Path,
) -> None:
    settings = _load(config, data__train=source, data__mapping=mapping, data__limit=limit, seed=seed)
    from retool.stages.sources import load_training
    from retool.stages.synth import synthesize

    report = asyncio.run(synthesize(settings, load_training(settings), out))
    _say(f"{report.accepted} traces of {report.sources} solutions: {out / 'traces.jsonl'}")


@cli.command(help=_documented("Fine-tune on cold-start traces; interpreter tokens are masked from the loss."))
@_config_argument
@click.option("--traces", type=click.Path(path_type=Path), required=True, help="JSONL file of `retool synth`.")
@_model_option
@_seed_option
@_out_option
def sft(config: tuple[str, ...], traces: Path, model: str | None, seed: int | None, out: Path) -> None:
    settings = _load(config, model__path=model, seed=seed)
    if not traces.is_file():
        raise UsageError(f"there is no file {traces}; `retool synth` makes traces")
    from retool.stages.sft import run_sft

    _say(f"trained: {run_sft(settings, traces, out)}")


@cli.command(help=_documented("Train by PPO, GRPO, … with code execution inside the rollout."))
@_config_argument
@_model_option
@click.option("--data", help="Problems to train on: a file, a named set, or `puzzles` (data.train).")
@click.option("--heldout", help="Problems to evaluate on (data.heldout).")
@_mapping_option
@_limit_option
@_seed_option
@_out_option
def rl(
    config: tuple[str, ...],
    model: str | None,
    data: str | None,
    heldout: str | None,
    mapping: str | None,
    limit: int | None,
    seed: int | None,
    out: Path,
) -> None:
    settings = _load(
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
    from retool.stages.rl import run_rl
    from retool.stages.sources import load_split

    rows, problems = load_split(settings)
    arm = "text-only" if settings.protocol.name == "text" else "ReTool"
    _say(f"trained: {asyncio.run(run_rl(settings, [problem for problem, _ in rows], problems, out, arm))}")


@cli.command(
    "eval",
    help=_documented("Evaluate a model: k samples of each problem, graded, with intervals; every sample is kept."),
)
@_config_argument
@click.option("--model", required=True, help="Hugging Face id or folder of the model.")
@click.option(
    "--data", required=True, help="Problems: a file, a named set (aime24, gsm8k, …), a Hugging Face id, or `puzzles`."
)
@_mapping_option
@_limit_option
@click.option("--protocol", type=click.Choice(["tags", "native", "fenced", "text"]), help="How calls are written.")
@click.option("--interpreter", type=click.Choice(["on", "off"]), help="off: same prompt, a call is never opened.")
@click.option("--samples", type=click.IntRange(min=1), help="Responses per problem.")
@_seed_option
@_out_option
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
    settings = _load(
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
    _say(f"results: {out / 'results.json'}, every sample: {out / 'samples.jsonl'}")


@cli.command(help="Compute the behaviour curves of runs, or the behaviour of evaluations, as JSON.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
def analyze(runs: tuple[Path, ...]) -> None:
    import json

    from retool.stages.analyze import analyze_runs

    click.echo(json.dumps(analyze_runs(runs), indent=2))


@cli.command(help="Write one self-contained HTML report of runs and evaluations (folders).")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=Path("report.html"), show_default=True)
def report(runs: tuple[Path, ...], out: Path) -> None:
    from retool.stages.report import report_runs

    report_runs(runs, out)
    _say(f"report: {out}")


@cli.command(help="Say what this machine offers: versions, devices, and how code will be contained.")
@_overrides_argument
def doctor(overrides: tuple[str, ...]) -> None:
    settings = _load(overrides)
    from retool.stages.doctor import diagnose

    for line in diagnose(settings):
        click.echo(line)
