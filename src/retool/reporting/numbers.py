"""How numbers are written, and which of them stand in the table of systems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from retool.reporting.record import System

NOTHING = "–"


def fraction(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def interval(bounds: tuple[float, float] | None) -> str:
    return NOTHING if bounds is None else f"{bounds[0]:.2f}–{bounds[1]:.2f}"


def number(value: float | None) -> str:
    """At least three significant digits, thousands set apart: 1,234 and 12.3 and 0.0012."""
    if value is None:
        return NOTHING
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table of systems."""

    title: str
    explanation: str
    text: Callable[[System], str]


PROBLEMS = Column("problems", "problems × samples of each", lambda s: f"{s.problems} × {s.samples}")
COLUMNS = (
    Column("accuracy", "mean share of correct samples per problem (avg@k)", lambda s: fraction(s.accuracy)),
    Column("95\u00a0% interval", "bootstrap over problems", lambda s: interval(s.ci95)),
    PROBLEMS,
    Column("truncated", "share of responses cut off by a limit", lambda s: fraction(s.truncated)),
    Column("code ratio", "share of responses that ran code", lambda s: fraction(s.code_ratio)),
    Column("code pass, correct", "share whose last call ran, of correct responses with code", lambda s: _pass(s, True)),
    Column("code pass, wrong", "share whose last call ran, of wrong responses with code", lambda s: _pass(s, False)),
)


def columns(systems: Sequence[System]) -> list[Column]:
    """The columns in which at least one of `systems` has something to show."""
    return [column for column in COLUMNS if any(column.text(system) != NOTHING for system in systems)]


def _pass(system: System, correct: bool) -> str:
    return fraction(system.code_pass_rate.get("correct" if correct else "incorrect"))
