"""Charts as Vega-Lite specifications (https://vega.github.io/vega-lite/): plain JSON, drawn by the page or to a file.

Labels come in as data and as domains of scales only. Vega-Lite builds expressions from field names, from the titles of
tooltips and from lists to sort by: these are ours alone, and rows are given in the order in which they are shown.
Colours are the theme's CSS variables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

from retool.reporting.numbers import fraction, interval, number
from retool.reporting.panels import Panel
from retool.reporting.record import CurveRow, System
from retool.reporting.theme import css_variable

Spec = dict[str, Any]

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif"
FEW_STEPS = 30
"""Up to this many steps each evaluated point is marked."""


def config() -> Spec:
    """Vega-Lite's `config` that gives all charts one look."""
    muted, ink, line = css_variable("muted"), css_variable("ink"), css_variable("line")
    return {
        "background": None,
        "font": FONT,
        "view": {"stroke": None},
        "axis": {
            "domain": False,
            "ticks": False,
            "gridColor": line,
            "labelColor": muted,
            "labelFontSize": 11,
            "labelPadding": 6,
            "labelFlush": False,
            "titleColor": muted,
            "titleFontSize": 11,
            "titleFontWeight": "normal",
        },
        "legend": {
            "labelColor": ink,
            "labelFontSize": 12,
            "symbolSize": 90,
            "symbolStrokeWidth": 2.5,
            "symbolOpacity": 1,
            "title": None,
        },
        "title": {"color": ink, "anchor": "start", "fontSize": 13, "subtitleColor": muted, "subtitleFontSize": 11},
    }


def accuracy_chart(systems: Sequence[System], colours: Mapping[str, str]) -> Spec:
    """A bar for the accuracy of each system, with its interval."""
    rows = [
        {
            "system": system.label,
            "accuracy": system.accuracy,
            "low": system.ci95[0] if system.ci95 else system.accuracy,
            "high": system.ci95[1] if system.ci95 else system.accuracy,
            "written": fraction(system.accuracy),
            "interval": interval(system.ci95),
            "problems": f"{system.problems} × {system.samples} samples",
        }
        for system in systems
    ]
    labels = [system.label for system in systems]
    y = {"field": "system", "type": "nominal", "sort": None, "title": None}
    y["axis"] = {"labelColor": css_variable("ink"), "labelFontSize": 13, "labelLimit": 190, "grid": False}
    x = {"field": "accuracy", "type": "quantitative", "title": None, "scale": {"domain": [0, 1]}}
    x["axis"] = {"format": ".1f", "tickCount": 5}
    tooltip = [
        {"field": "system", "title": "system"},
        {"field": "written", "title": "accuracy"},
        {"field": "interval", "title": "95 % interval"},
        {"field": "problems", "title": "problems"},
    ]
    whisker = {"type": "rule", "color": css_variable("ink"), "strokeWidth": 2, "opacity": 0.7}
    value = {"type": "text", "align": "left", "dx": 8, "fontSize": 14, "fontWeight": 600, "color": css_variable("ink")}
    return {
        "description": "Accuracy: " + ", ".join(f"{row['system']} {row['written']}" for row in rows),
        "data": {"values": rows},
        "height": 42 * len(systems),
        "encoding": {"y": y},
        "layer": [
            {
                "mark": {"type": "bar", "height": {"band": 0.56}, "cornerRadiusEnd": 3},
                "encoding": {"x": x, "color": colour_of("system", labels, colours), "tooltip": tooltip},
            },
            {"mark": whisker, "encoding": {"x": {"field": "low", "type": "quantitative"}, "x2": {"field": "high"}}},
            {
                "mark": value,
                "encoding": {"x": {"field": "high", "type": "quantitative"}, "text": {"field": "written"}},
            },
        ],
    }


def families_chart(systems: Sequence[System], colours: Mapping[str, str]) -> Spec:
    """A line of dots for each family of problems, one dot a system; the widest gap comes first."""
    labels = [system.label for system in systems]
    accuracies = family_accuracies(systems)
    rows = [
        {"family": family, "system": label, "accuracy": accuracy}
        for family, row in accuracies.items()
        for label, accuracy in zip(labels, row, strict=True)
        if accuracy is not None
    ]
    tips = [
        {"family": family} | dict(zip(labels, map(fraction, row), strict=True)) for family, row in accuracies.items()
    ]
    y = {"field": "family", "type": "nominal", "sort": None, "title": None}
    y["axis"] = {"labelColor": css_variable("ink"), "labelFontSize": 12, "labelLimit": 190, "labelPadding": 12}
    y["axis"]["grid"] = False
    x = {"field": "accuracy", "type": "quantitative", "title": None, "scale": {"domain": [0, 1]}}
    x["axis"] = {"format": ".1f", "tickCount": 5}
    legend = {"orient": "top", "direction": "horizontal", "columns": 2, "offset": 4, "labelLimit": 240}
    shapes = ["circle", "diamond", "square", "triangle-up"]
    shape = {"field": "system", "type": "nominal", "legend": legend if len(labels) > 1 else None}
    shape["scale"] = {"domain": labels, "range": [shapes[i % len(shapes)] for i in range(len(labels))]}
    colour = colour_of("system", labels, colours) | {"legend": shape["legend"]}
    return {
        "description": f"Accuracy of {len(labels)} systems in {len(accuracies)} families of problems",
        "data": {"values": rows},
        "height": 30 * len(accuracies),
        "encoding": {"y": y},
        "layer": [
            {
                "mark": {"type": "rule", "color": css_variable("line"), "strokeWidth": 3},
                "encoding": {
                    "x": {"aggregate": "min", "field": "accuracy", "type": "quantitative"},
                    "x2": {"aggregate": "max", "field": "accuracy"},
                },
            },
            {
                "mark": {"type": "point", "filled": True, "size": 110, "opacity": 1},
                "encoding": {"x": x, "color": colour, "shape": shape},
            },
            {  # an invisible bar over the whole row, to point at
                "data": {"values": tips},
                "mark": {"type": "bar", "opacity": 0, "tooltip": {"content": "data"}},
                "encoding": {"x": {"datum": 0}, "x2": {"datum": 1}},
            },
        ],
    }


def family_accuracies(systems: Sequence[System]) -> dict[str, list[float | None]]:
    """Family -> accuracy of each system; families with the widest gap between systems first."""
    names = dict.fromkeys(name for system in systems for name in system.families)
    table = {name: [system.families.get(name) for system in systems] for name in names}

    def gap(name: str) -> tuple[float, float]:
        known = [accuracy for accuracy in table[name] if accuracy is not None]
        return max(known) - min(known), max(known)

    return {name: table[name] for name in sorted(table, key=gap, reverse=True)}


def curve_chart(
    panel: Panel,
    curves: Sequence[CurveRow],
    colours: Mapping[str, str],
    *,
    height: int = 150,
    legend: bool = False,
) -> Spec:
    """The curves of a panel over training steps: colour tells the arm, dashes the part; pointing reads all values."""
    rows = panel.rows(curves)
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    parts = [metric for metric in panel.parts if any(row["metric"] == metric for row in rows)]
    steps = sorted({row["step"] for row in rows})
    first = parts[0] if parts else ""  # bands of all parts would hide each other; pointing tells their intervals
    band = [
        row for row in rows if row["metric"] == first and row.get("low") is not None and row.get("high") is not None
    ]
    value = {"field": "value", "type": "quantitative", "title": None, "axis": {"tickCount": 4}}
    value["scale"] = {"domain": list(panel.domain)} if panel.domain else {"zero": starts_at_zero(rows)}
    if panel.domain:
        value["axis"]["format"] = ".1f"
    elif are_all_zero(rows):
        value["scale"]["domain"] = [0, 1]
    elif are_tiny(rows):
        value["axis"] |= {"format": ".0e", "labelExpr": "datum.value === 0 ? '0' : datum.label"}
    colour = colour_of("arm", arms, colours)
    if legend:
        colour["legend"] = {"orient": "bottom", "symbolType": "stroke"}
    dash: Spec = {}
    if len(parts) > 1:
        scale = {"domain": parts, "range": [[1, 0], [4, 3], [1, 3], [7, 2]][: len(parts)]}
        dash["strokeDash"] = {"field": "metric", "type": "nominal", "scale": scale, "legend": None}
    detail = [{"field": "arm"}, {"field": "metric"}]
    line = {"type": "line", "strokeWidth": 2.25, "strokeJoin": "round", "strokeCap": "round"}
    layers: list[Spec] = []
    if band:
        ends = {"y": {"field": "low", "type": "quantitative"}, "y2": {"field": "high"}}
        layers.append(
            {
                "data": {"values": band},
                "mark": {"type": "area", "opacity": 0.16},
                "encoding": ends | {"color": colour, "detail": detail},
            }
        )
    layers.append({"mark": line, "encoding": {"y": value, "color": colour, "detail": detail} | dash})
    layers.append(
        {
            "mark": {"type": "point", "filled": True, "opacity": 1},
            "encoding": {
                "y": value,
                "color": colour,
                "size": {
                    "condition": {"param": "hover", "empty": False, "value": 70},
                    "value": 22 if len(steps) <= FEW_STEPS else 0,
                },
            },
        }
    )
    layers.append(_hover(rows, arms, panel, parts, steps))
    x = {"field": "step", "type": "quantitative", "title": "training step", "scale": {"nice": False}}
    x["axis"] = {"grid": False, "tickCount": 5, "tickMinStep": 1, "format": "d"}
    return {
        "description": f"{panel.title} over training steps. {panel.explanation}",
        "data": {"values": rows},
        "height": height,
        "encoding": {"x": x},
        "layer": layers,
    }


def colour_of(field: str, labels: Sequence[str], colours: Mapping[str, str]) -> Spec:
    scale = {"domain": list(labels), "range": [colours[label] for label in labels]}
    return {"field": field, "type": "nominal", "scale": scale, "legend": None}


def starts_at_zero(rows: Sequence[CurveRow]) -> bool:
    """Should the axis start at zero? Yes if that wastes less than half of it, or if the values have no range."""
    values = [row["value"] for row in rows if row["value"] is not None and isfinite(row["value"])]
    return 0 <= min(values) <= max(values) / 2 or min(values) == max(values)


def are_all_zero(rows: Sequence[CurveRow]) -> bool:
    return not any(row["value"] for row in rows)


def are_tiny(rows: Sequence[CurveRow]) -> bool:
    """Would the axis need many zeros after the point?"""
    return all(abs(row["value"]) < 0.001 for row in rows if row["value"] is not None and isfinite(row["value"]))


def _hover(rows: Sequence[CurveRow], arms: Sequence[str], panel: Panel, parts: Sequence[str], steps: list[int]) -> Spec:
    """A vertical rule at the step that is nearest to the pointer, with the values of all curves there."""
    written = number if panel.domain is None else fraction
    known = {(row["step"], row["arm"], row["metric"]): row for row in rows}
    names = {(arm, part): ", ".join(filter(None, (arm, panel.parts[part]))) for arm in arms for part in parts}
    tips = [
        {"step": step} | {name: _with_band(known.get((step, *series)), written) for series, name in names.items()}
        for step in steps
    ]
    nearest = {"type": "point", "on": "pointermove", "clear": "pointerout", "nearest": True, "fields": ["step"]}
    # The tooltip shows the whole row: Vega-Lite 6.4 reads a list of fields from the wrong object where `nearest` is on
    # (https://github.com/vega/vega-lite/pull/9707).
    return {
        "data": {"values": tips},
        "params": [{"name": "hover", "select": nearest}],
        "mark": {"type": "rule", "color": css_variable("muted"), "strokeWidth": 1, "tooltip": {"content": "data"}},
        "encoding": {"opacity": {"condition": {"param": "hover", "empty": False, "value": 0.6}, "value": 0}},
    }


def _with_band(row: CurveRow | None, written: Callable[[float | None], str]) -> str:
    """A value, with its interval if it has one: `0.92 (0.90–0.94)`."""
    if row is None or row.get("low") is None or row.get("high") is None:
        return written(row and row["value"])
    return f"{written(row['value'])} ({written(row['low'])}–{written(row['high'])})"
