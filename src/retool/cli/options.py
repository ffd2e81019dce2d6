"""What the verbs share: arguments, options, and the config that they add up to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from retool.config.load import load_config, presets
from retool.config.schema import Config

config_argument = click.argument("config", nargs=-1, metavar="[CONFIG] [KEY=VALUE]...")
overrides_argument = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
out_option = click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the run."
)
model_option = click.option("--model", help="Hugging Face id or folder of the model (model.path).")
seed_option = click.option("--seed", type=click.IntRange(min=0), help="Seed of everything random.")
mapping_option = click.option(
    "--mapping",
    help="Columns of the data: gsm8k, math, openthoughts, retool-sft, …, or problem=…,answer=…[,solution=…]",
)
limit_option = click.option("--limit", type=click.IntRange(min=1), help="Use the first N problems only.")

_CONFIG_HELP = (
    "CONFIG is a preset ({presets}) or a YAML file (none: the defaults); KEY=VALUE overrides a setting, "
    "such as rl.steps=20."
)


def documented(text: str) -> str:
    return text + "\n\n" + _CONFIG_HELP.format(presets=", ".join(presets()))


def load(words: Sequence[str], **settings: Any) -> Config:
    """The config from `[CONFIG] [KEY=VALUE]…`, with the options that were given as overrides on top."""
    source, overrides = (words[0], words[1:]) if words and "=" not in words[0] else (None, words)
    given = [f"{key.replace('__', '.')}={_quoted(value)}" for key, value in settings.items() if value is not None]
    return load_config(Config, source, [*overrides, *given])


def _quoted(value: Any) -> str:
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"


def say(text: str) -> None:
    """Of the processes that torchrun has started, the first one speaks."""
    if os.environ.get("RANK", "0") == "0":
        click.echo(text, err=True)
