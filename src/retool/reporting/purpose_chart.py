"""What code is for, before and after: for each purpose a line from the share of calls that it had to the one it has."""

from __future__ import annotations

from collections.abc import Sequence

from retool.reporting.charts import Spec
from retool.reporting.numbers import NOTHING
from retool.reporting.record import Purposes
from retool.reporting.theme import css_variable

ROW_HEIGHT = 26


def by_label(purposes: Sequence[Purposes]) -> dict[str, list[Purposes]]:
    """The moments of each label, in order."""
    found: dict[str, list[Purposes]] = {}
    for state in purposes:
        found.setdefault(state.label, []).append(state)
    return found


def order(purposes: Sequence[Purposes]) -> list[str]:
    """All purposes that a call had, the most frequent first."""
    totals: dict[str, float] = {}
    for state in purposes:
        for purpose in state.calls:
            totals[purpose] = totals.get(purpose, 0.0) + (share(state, purpose) or 0.0)
    return sorted((p for p in totals if totals[p]), key=lambda purpose: -totals[purpose])


def share(state: Purposes, purpose: str) -> float | None:
    """Of the calls of `state`, the share with that purpose; None if there was no call."""
    total = sum(state.calls.values())
    return state.calls.get(purpose, 0) / total if total else None


def written_share(state: Purposes, purpose: str) -> str:
    """As text: `34 % (120)`."""
    found = share(state, purpose)
    return NOTHING if found is None else f"{found:.0%} ({state.calls.get(purpose, 0):,})"


def purpose_chart(states: Sequence[Purposes], purposes: Sequence[str], colour: str) -> Spec:
    """The states of one label: a hollow mark for the first, a full one for the last, a rule between them."""
    ends = [states[0], states[-1]] if len(states) > 1 else [states[0]]
    rows = [
        {"purpose": purpose, "share": found, "moment": state.moment, "calls": state.calls.get(purpose, 0)}
        for purpose in purposes
        for state in ends
        if (found := share(state, purpose)) is not None
    ]
    tips = [
        {"purpose": purpose} | {state.moment or "share": written_share(state, purpose) for state in ends}
        for purpose in purposes
    ]
    y = {"field": "purpose", "type": "nominal", "title": None, "scale": {"domain": list(purposes)}}
    y["axis"] = {"labelColor": css_variable("ink"), "labelFontSize": 12, "labelLimit": 150, "labelPadding": 12}
    y["axis"]["grid"] = False
    x = {"field": "share", "type": "quantitative", "title": None, "axis": {"format": ".0%", "tickCount": 4}}
    x["scale"] = {"zero": True}
    moments = [state.moment for state in ends]
    fill = {"field": "moment", "type": "nominal", "legend": None}
    fill["scale"] = {"domain": moments, "range": [css_variable("raised"), colour][-len(moments) :]}
    span = {"x": {"aggregate": "min", "field": "share", "type": "quantitative"}}
    span["x2"] = {"aggregate": "max", "field": "share"}
    return {
        "description": f"Purposes of the calls of {states[0].label}: "
        + ", ".join(f"{row['purpose']} {row['share']:.0%}" for row in rows if row["moment"] == moments[-1]),
        "data": {"values": rows},
        "height": ROW_HEIGHT * len(purposes),
        "encoding": {"y": y},
        "layer": [
            {"mark": {"type": "rule", "color": colour, "strokeWidth": 2, "opacity": 0.55}, "encoding": span},
            {
                "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1, "stroke": colour, "strokeWidth": 2},
                "encoding": {"x": x, "fill": fill},
            },
            {  # an invisible bar over the whole row, to point at
                "data": {"values": tips},
                "mark": {"type": "bar", "opacity": 0, "tooltip": {"content": "data"}},
                "encoding": {"x": {"value": 0}, "x2": {"value": "width"}},
            },
        ],
    }
