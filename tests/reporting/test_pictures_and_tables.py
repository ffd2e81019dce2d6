"""The picture for a README and the closing table in the terminal."""

import struct
from dataclasses import replace

import pytest
from demo_run import curves, demo_report, systems
from rich.console import Console

from retool.errors import UsageError
from retool.reporting import Report, save_chart_png, terminal_table


def size_of(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", png[16:24])


def shown(table, width: int = 120) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_the_picture_holds_the_systems_and_the_learning_curves(tmp_path):
    save_chart_png(tmp_path / "both.png", demo_report())
    save_chart_png(tmp_path / "systems.png", Report(title="t", systems=systems()), dark=True)
    save_chart_png(tmp_path / "curves.png", Report(title="t", curves=curves()))
    both, bars, lines = (size_of((tmp_path / f"{n}.png").read_bytes()) for n in ("both", "systems", "curves"))
    assert both[0] > max(bars[0], lines[0]) > 700
    assert both[1] >= max(bars[1], lines[1]) > 300


def test_a_picture_of_nothing_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="nothing to draw"):
        save_chart_png(tmp_path / "x.png", Report(title="t"))


def test_the_table_has_a_row_a_system():
    text = shown(terminal_table(systems(), title="Held-out problems"), width=80)
    assert text.splitlines()[0].strip() == "Held-out problems"
    row = next(line for line in text.splitlines() if "text-only RL" in line)
    assert row.split() == ["text-only", "RL", "0.33", "0.27–0.39", "0.04", "0.00", "–", "–"]
    assert "240 × 4 samples" in text


def test_labels_in_the_table_are_neither_markup_nor_control_codes():
    label = "[bold]x[/bold]\x1b]0;title\x07\x1b[31m [/]"
    text = shown(terminal_table([replace(systems()[0], label=label)], title="[red]\x1b[2J"))
    assert "[bold]x[/bold] [/]" in text
    assert "[red]" in text
    assert "\x1b" not in text
