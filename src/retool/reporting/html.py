"""One self-contained HTML file: it needs no network, and nothing in it runs but its own two scripts.

Text of models and code is hostile. Three walls stand before it: control codes are stripped wherever text enters the
page (`printable`); text is escaped, by Jinja in HTML and by `embed_json` in data, or packed (`chunks`), and made into
text nodes only; and a content security policy names the page's scripts by hash and forbids every other script, `eval`
and every connection.
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
from retool.reporting import charts, numbers, purpose_chart, step_chart, theme
from retool.reporting.archive import Archive
from retool.reporting.headline import headline
from retool.reporting.panels import BEHAVIOUR, LEARNING, TRAINING, Panel, others, present
from retool.reporting.printable import printable
from retool.reporting.record import CurveRow, Report

TEMPLATES = files("retool.reporting") / "templates"
NOTES = 2_000  # bytes for what an archive says about itself
JSON_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
STYLES = ("page.css", "browser.css", "print.css")
SCRIPTS = (  # in one scope, each using those above it
    "dom.js",
    "charts.js",
    "archive.js",
    "selection.js",
    "search.js",
    "passages.js",
    "tokens.js",
    "reader.js",
    "list.js",
    "filters.js",
    "keyboard.js",
    "main.js",
)


def write_report(path: str | Path, report: Report) -> None:
    """Write `report` to `path` as one HTML file: about 1 MB and its trajectories, 40 MB if its archive was not told
    otherwise. An older file is replaced at once or not at all."""
    publish(path, render(report).encode())


def render(report: Report) -> str:
    """The page as a string."""
    colours = theme.assign_colours([system.label for system in report.systems], report.arms)
    learning = present(LEARNING, report.curves)
    behaviour = present(BEHAVIOUR, report.curves)
    further = present((*TRAINING, *others(report.curves)), report.curves)
    families = charts.family_accuracies(report.systems)
    purposes = purpose_chart.by_label(report.purposes)
    drawings = {p.key: charts.curve_chart(p, report.curves, colours) for p in (*behaviour, *further)}
    drawings |= {p.key: charts.curve_chart(p, report.curves, colours, height=230) for p in learning}
    if report.systems:
        drawings["accuracy"] = charts.accuracy_chart(report.systems, colours)
    if len(families) > 1:
        drawings["families"] = charts.families_chart(report.systems, colours)
    kinds = purpose_chart.order(report.purposes)
    for label, states in purposes.items():
        colour = colours.get(label, theme.css_variable(theme.SERIES[0]))
        drawings[f"purposes-{label}"] = purpose_chart.purpose_chart(states, kinds, colour)
    drawings |= {f"step-{times.label}": step_chart.step_chart(times) for times in report.step_times}
    script = page_script()
    template = environment().get_template("report.html.j2")
    parts = {
        "report": report,
        "colours": colours,
        "headline": headline(report),
        "learning": learning,
        "behaviour": behaviour,
        "further": further,
        "families": families if len(families) > 1 else {},
        "purposes": purposes,
        "kinds": kinds,
        "written_share": purpose_chart.written_share,
        "step_chart": step_chart,
        "columns": numbers.columns(report.systems),
        "changes": numbers.changes(report.curves),
        "numbers": numbers,
        "curve_table": curve_table(report.curves, [*learning, *behaviour, *further]),
        "light": theme.LIGHT,
        "dark": theme.DARK,
        "css": Markup("\n".join(map(source, STYLES))),
        "vega": Markup(vega_bundle()),
        "script": Markup(script),
        "hashes": [script_hash(vega_bundle()), script_hash(script)],
        "drawings": embed_json({"config": charts.config(), "charts": drawings}),
    }
    archive = report.archive or Archive()
    without = template.render(parts, trajectories=len(archive), columns_packed="", chunks={}, notes=report.notes)
    chunks = {name: Markup(packed) for name, packed in archive.chunks(len(without.encode()) + NOTES).items()}
    return template.render(
        parts,
        trajectories=len(archive),
        columns_packed=Markup(archive.columns()),  # base64 needs no escaping
        chunks=chunks,
        notes=[*report.notes, *archive.notes()],
    )


def embed_json(value: Any) -> Markup:
    """`value` as JSON for a `<script type="application/json">`: it can neither close the element nor open another."""
    return Markup(json.dumps(_printable(value), ensure_ascii=False, allow_nan=False).translate(JSON_ESCAPES))


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


@cache
def page_script() -> str:
    """The page's own script: its files one after the other, in one scope that nothing else can reach."""
    return '"use strict";\n(() => {\n' + "\n".join(map(source, SCRIPTS)) + "})();\n"


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
