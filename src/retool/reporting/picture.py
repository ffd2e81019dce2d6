"""One picture of a report: the accuracies, and beside them how they were learned."""

from __future__ import annotations

from pathlib import Path

import vl_convert

from retool.errors import UsageError
from retool.files import publish
from retool.reporting import charts, theme
from retool.reporting.panels import LEARNING, present
from retool.reporting.record import Report

BAR_WIDTH, CURVE_WIDTH, CURVE_HEIGHT = 330, 400, 170


def save_chart_png(path: str | Path, report: Report, *, dark: bool = False) -> None:
    """Write a PNG (at two pixels a point) of the accuracy of all systems and the learning curves of all arms."""
    palette = theme.DARK if dark else theme.LIGHT
    spec = theme.resolve(_picture(report), palette)
    png = vl_convert.vegalite_to_png(spec, scale=2, allowed_base_urls=[])
    publish(path, png)


def _picture(report: Report) -> charts.Spec:
    colours = theme.assign_colours([system.label for system in report.systems], report.arms)
    views = []
    if report.systems:
        title = {"text": "Accuracy on held-out problems", "subtitle": "95 % bootstrap intervals over problems"}
        views.append(charts.accuracy_chart(report.systems, colours) | {"width": BAR_WIDTH, "title": title})
    for panel in present(LEARNING[:1], report.curves):
        chart = charts.curve_chart(panel, report.curves, colours, height=CURVE_HEIGHT, legend=True)
        title = {"text": f"{panel.title} while learning", "subtitle": "at each evaluated checkpoint"}
        views.append(chart | {"width": CURVE_WIDTH, "title": title})
    if not views:
        raise UsageError("The report has neither systems nor accuracies over training: there is nothing to draw.")
    config = charts.config() | {"background": theme.css_variable("paper")}
    return {
        "config": config,
        "padding": 20,
        "spacing": 48,
        "hconcat": views,
        "resolve": {"scale": {"color": "independent"}},
    }
