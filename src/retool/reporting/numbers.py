"""How numbers are written, and which of them stand in the tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from retool.reporting.record import CurveRow, System

NOTHING = "–"


def fraction(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def interval(bounds: tuple[float, float] | None) -> str:
    return NOTHING if bounds is None else f"{bounds[0]:.2f}–{bounds[1]:.2f}"


def signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def probability(value: float) -> str:
    """A p-value: two significant digits, and no smaller than anybody needs."""
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


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


def _pass(system: System, correct: bool) -> str:
    return fraction(system.code_pass_rate.get("correct" if correct else "incorrect"))


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
SELF_CORRECTED = Column(
    "self-corrected",
    "of the responses with a failed call, the share that mended it",
    lambda s: fraction(s.self_corrected),
)


def columns(systems: Sequence[System]) -> list[Column]:
    """The columns in which at least one of `systems` has something to show."""
    return _with_content([*COLUMNS[:3], *_at_k(systems), *COLUMNS[3:], SELF_CORRECTED], systems)


def terminal_columns(systems: Sequence[System]) -> list[Column]:
    """Those of them that 80 characters have room for."""
    return _with_content([column for column in COLUMNS if column is not PROBLEMS], systems)


def _with_content(columns: Sequence[Column], systems: Sequence[System]) -> list[Column]:
    return [column for column in columns if any(column.text(system) != NOTHING for system in systems)]


def _at_k(systems: Sequence[System]) -> list[Column]:
    """pass@k and maj@k for the largest k that all systems have; with one sample a problem both are the accuracy."""
    k = min((system.samples for system in systems), default=1)
    if k == 1:
        return []
    explained = f"share of problems solved by at least one of {k} samples", f"by the vote of {k} samples"
    return [
        Column(f"pass@{k}", explained[0], lambda s: fraction(s.pass_at.get(str(k)))),
        Column(f"maj@{k}", explained[1], lambda s: fraction(s.maj_at.get(str(k)))),
    ]


@dataclass(frozen=True, slots=True)
class Change:
    """A metric of an arm at its first and at its last evaluated step."""

    arm: str
    first_step: int
    last_step: int
    values: dict[str, tuple[str, str]]
    """Title of the metric -> before and after, as they are written."""


CHANGING = {
    "accuracy": ("accuracy", fraction),
    "code_ratio": ("code ratio", fraction),
    "code_lines": ("code lines", number),
    "code_pass_rate.correct": ("code pass, correct", fraction),
    "self_correction.of_failed": ("self-corrected", fraction),
    "response_length.model": ("response length", number),
}


def changes(curves: Sequence[CurveRow]) -> list[Change]:
    """What became of the arms that have at least two points of a metric of `CHANGING`."""
    found = []
    for arm in dict.fromkeys(row["arm"] for row in curves):
        values, steps = {}, set()
        for metric, (title, written) in CHANGING.items():
            points = sorted(
                (row["step"], row["value"])
                for row in curves
                if row["arm"] == arm and row["metric"] == metric and row["value"] is not None
            )
            if len(points) > 1:
                values[title] = written(points[0][1]), written(points[-1][1])
                steps |= {points[0][0], points[-1][0]}
        if values:
            found.append(Change(arm, min(steps), max(steps), values))
    return found
