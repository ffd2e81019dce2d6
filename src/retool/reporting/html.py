"""One self-contained HTML file: it needs no network, and nothing in it runs but its own two scripts.

Text of models and code is hostile. Three walls stand before it: control codes are stripped wherever text enters the
page (`printable`); text is escaped, by Jinja in HTML and by `embed_json` in data; and a content security policy names
the page's scripts by hash and forbids every other script, `eval` and every connection.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from math import isfinite
from pathlib import Path
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup

from retool.files import publish
from retool.reporting import charts, numbers, theme
from retool.reporting.panels import BEHAVIOUR, LEARNING, Panel, others, present
from retool.reporting.printable import printable
from retool.reporting.reading import span_views
from retool.reporting.record import CurveRow, Example, Report

TEMPLATES = files("retool.reporting") / "templates"
JSON_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def write_report(path: str | Path, report: Report) -> None:
    """Write `report` to `path` as one HTML file of about 1 MB; an older one is replaced at once or not at all."""
    publish(path, render(report).encode())


def render(report: Report) -> str:
    """The page as a string."""
    colours = theme.assign_colours([system.label for system in report.systems], report.arms)
    learning, behaviour = present(LEARNING, report.curves), present(BEHAVIOUR, report.curves)
    further = present(others(report.curves), report.curves)
    drawings = {p.key: charts.curve_chart(p, report.curves, colours) for p in (*behaviour, *further)}
    drawings |= {p.key: charts.curve_chart(p, report.curves, colours, height=230) for p in learning}
    if report.systems:
        drawings["accuracy"] = charts.accuracy_chart(report.systems, colours)
    families = charts.family_accuracies(report.systems)
    if len(families) > 1:
        drawings["families"] = charts.families_chart(report.systems, colours)
    script = source("report.js")
    template = environment().get_template("report.html.j2")
    return template.render(
        report=report,
        colours=colours,
        learning=learning,
        behaviour=behaviour,
        further=further,
        families=families if len(families) > 1 else {},
        columns=numbers.columns(report.systems),
        numbers=numbers,
        stages=by_stage(report.examples),
        curve_table=curve_table(report.curves, [*learning, *behaviour, *further]),
        light=theme.LIGHT,
        dark=theme.DARK,
        css=Markup(source("report.css")),
        vega=Markup(vega_bundle()),
        script=Markup(script),
        hashes=[script_hash(vega_bundle()), script_hash(script)],
        drawings=embed_json({"config": charts.config(), "charts": drawings}),
        span_views=span_views,
    )


def embed_json(value: Any) -> Markup:
    """`value` as JSON for a `<script type="application/json">`: it can neither close the element nor open another."""
    return Markup(json.dumps(_printable(value), ensure_ascii=False, allow_nan=False).translate(JSON_ESCAPES))


def by_stage(examples: Sequence[Example]) -> dict[str, list[Example]]:
    """The examples of each stage, stages in order of first appearance."""
    stages: dict[str, list[Example]] = {}
    for example in examples:
        stages.setdefault(example.stage, []).append(example)
    return stages


def curve_table(curves: Sequence[CurveRow], panels: Sequence[Panel]) -> dict[str, Any]:
    """The numbers behind the curves as {`head`, `rows`}: one row for each arm and step, for readers without a mouse."""
    names = {m: f"{p.title}, {part}" if part else p.title for p in panels for m, part in p.parts.items()}
    names = {metric: name for metric, name in names.items() if any(row["metric"] == metric for row in curves)}
    known = {(row["arm"], row["step"], row["metric"]): row["value"] for row in curves}
    places = dict.fromkeys((row["arm"], row["step"]) for row in curves)
    rows = [[arm, step, *(numbers.number(known.get((arm, step, m))) for m in names)] for arm, step in places]
    return {"head": ["arm", "step", *names.values()], "rows": rows}


@cache
def environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def source(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


@cache
def vega_bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that sets `window.vegaEmbed`."""
    return vl_convert.javascript_bundle()


def script_hash(script: str) -> str:
    """The source expression that lets a content security policy allow exactly this inline script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _printable(value: Any) -> Any:
    """`value` with every string in it made safe to show. Our own markup stays; a NaN, not in JSON, becomes None."""
    match value:
        case Markup():
            return value
        case str():
            return printable(value)
        case dict():
            return {_printable(key): _printable(v) for key, v in value.items()}
        case list() | tuple():
            return [_printable(v) for v in value]
        case float() if not isfinite(value):
            return None
        case _:
            return value
