"""`retool doctor`."""

from __future__ import annotations

import click

from retool.cli.options import load, overrides_argument


@click.command(help="Say what this machine offers: versions, devices, and how code will be contained.")
@overrides_argument
def doctor(overrides: tuple[str, ...]) -> None:
    settings = load(overrides)
    from retool.stages.doctor import diagnose

    for line in diagnose(settings):
        click.echo(line)
