"""The closing table of a run, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from retool.reporting.numbers import PROBLEMS, terminal_columns
from retool.reporting.printable import printable
from retool.reporting.record import System


def terminal_table(systems: Sequence[System], title: str = "") -> Table:
    """A rich table with one row a system, the best accuracy in bold, that fits 80 characters.

    Labels are shown as they are, without markup. How many problems and samples there were stands below.
    """
    shown = terminal_columns(systems)
    counts = dict.fromkeys(PROBLEMS.text(system) for system in systems)
    table = Table(
        title=Text(printable(title)) if title else None,
        caption=Text(f"{' or '.join(counts)} samples, bootstrap intervals over problems") if systems else None,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("")
    for column in shown:
        table.add_column(Text(column.title.replace(" ", "\n")), justify="right", no_wrap=True)
    best = max((system.accuracy for system in systems), default=None)
    for system in systems:
        style = "bold" if system.accuracy == best else ""
        cells = [Text(printable(system.label)), *(Text(column.text(system)) for column in shown)]
        table.add_row(*cells, style=style)
    return table
