"""`retool VERB …`. Torch is imported by the verbs that need it, when they run."""

from __future__ import annotations

import os
import signal
import sys
import traceback

import click

import retool
from retool.cli.analyze import analyze
from retool.cli.cluster import cluster
from retool.cli.compare import compare
from retool.cli.doctor import doctor
from retool.cli.evaluate import evaluate
from retool.cli.report import report
from retool.cli.sandbox import sandbox
from retool.cli.solve import solve
from retool.cli.synth import synth
from retool.cli.training import quickstart, rl, sft
from retool.errors import RetoolError, UsageError

_INTERRUPTED = 130  # what a shell reports for Ctrl-C
_IN_SEVERAL_PROCESSES = ("sft", "rl")
_GO_ON = ("quickstart", "synth", "sft", "rl", "eval")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(retool.__version__, prog_name="retool")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Teach language models when and how to call a Python interpreter in the middle of their reasoning.

    Start with `retool quickstart`: a tiny model learns it on this machine, in minutes, without a GPU.
    """
    verb = context.invoked_subcommand
    if verb not in _IN_SEVERAL_PROCESSES and "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(f"retool {verb} is one process, and torchrun has started several: run it without torchrun")


for _verb in (quickstart, synth, sft, rl, evaluate, compare, analyze, report, solve, sandbox, cluster, doctor):
    cli.add_command(_verb)


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
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one ends what is left without a traceback
        verb = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
        rest = "; run the same command again to go on where it stopped" if verb in _GO_ON else ""
        click.echo(f"\ninterrupted{rest}", err=True)
        sys.exit(_INTERRUPTED)
    except RetoolError as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        click.echo(f"retool: {error}", err=True)
        sys.exit(error.exit_code)
