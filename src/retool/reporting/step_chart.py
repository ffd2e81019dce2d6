"""Who did what when in one step of training: a lane for the learner and, on a cluster, one for each sampler.

What is coloured works; where the grey of a lane shows, somebody waits. A sampler rolls out many groups at a time, each
a bar of its own, so that one sees the last ones that all the others wait for. New weights take the whole lane.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retool.reporting.charts import Spec
from retool.reporting.numbers import NOTHING, number
from retool.reporting.step_times import StepTimes, Work
from retool.reporting.theme import css_variable

COLOURS = {
    "rollout": css_variable("series-1"),
    "update": css_variable("series-2"),
    "weights": css_variable("series-3"),
    "evaluation": css_variable("series-4"),
    "lost": css_variable("ink"),
}
FADING = 0.6
"""How strong the colour of a group is for each step that it is ahead."""
MOST_SAMPLERS = 32
"""That have a lane; of more, the first ones do."""
LEARNER, GAP = 30, 8
"""Heights in points: of the learner's lane, and between lanes."""
GROUP, LEAST, MOST, ALL = 7, 14, 56, 640
"""Of a group's bar, if there is room for it; of a sampler's lane, at least and at most; of all of these together."""
BUSY = {"orient": "right", "title": "busy", "titleAngle": 0, "titleAlign": "left", "titleX": 6, "titleY": -7}
LETTER = 6.5
"""The width of a letter in points, about."""

TOOLTIP = [{"field": name, "title": name} for name in ("who", "what", "which", "from", "for")]

Row = dict[str, Any]


def step_chart(times: StepTimes) -> Spec:
    """The lanes of a step from its beginning to its end; what reaches beyond is cut off."""
    shown = times.lanes[:MOST_SAMPLERS]
    height = min(max(LEAST, min(GROUP * times.rows, ALL / max(1, len(shown)))), MOST)
    grounds: list[Row] = [{"y": 0, "y2": LEARNER, "name": "learner", "busy": f"{times.learner_busy:.0%}"}]
    phases = _phases(times)
    bars = list(phases)
    for sampler, lane in enumerate(shown):
        top = grounds[-1]["y2"] + GAP
        ground = {"y": top, "y2": top + height}
        grounds.append(ground | {"name": f"sampler {sampler}", "busy": f"{times.busy[sampler]:.0%}"})
        thick = height / times.rows
        bars += [_bar(times, work, top + row * thick, top + (row + 1) * thick) for row, work in lane.groups]
        bars += [_bar(times, work, top, top + height) for work in lane.weights]
    bottom = grounds[-1]["y2"]
    y = {"field": "y", "type": "quantitative", "axis": None}
    y["scale"] = {"domain": [0, bottom], "reverse": True, "nice": False}
    under = [_ground(y, _axis(grounds, "name"), 0.5)]
    if shown:
        under.append(_ground(y, _axis(grounds, "busy") | BUSY, 0))
    return {
        "description": f"Step {times.step} of {times.label}. {said(times)}",
        "data": {"values": grounds},
        "height": bottom,
        "layer": [*under, _bars(bars, y, times.seconds), _words(phases, y, times.seconds)],
        "resolve": {"axis": {"y": "independent"}},
    }


def said(times: StepTimes) -> str:
    """What the chart shows, in a sentence or two."""
    took = f"It took {number(times.seconds)} s"
    if not times.samplers:
        return f"{took}."
    who = "the sampler was" if times.samplers == 1 else f"the {times.samplers} samplers were"
    busy = sum(times.busy) / times.samplers
    steps = "the next step" if times.ahead == 1 else f"the next {times.ahead} steps"
    ahead = f", in part with groups of {steps}" if times.ahead else ""
    few = f" Shown are the first {MOST_SAMPLERS} samplers." if times.samplers > MOST_SAMPLERS else ""
    return f"{took}: the learner waited for {1 - times.learner_busy:.0%} of it, {who} {busy:.0%} busy{ahead}.{few}"


def legend(times: StepTimes) -> list[tuple[str, str, float]]:
    """What is in the chart: name, colour, and how strong that is."""
    own = [phase for phase in times.phases if not times.waits(phase)]
    kinds = {*own, *("lost" if work.lost else work.kind for work in times.work)}
    found = [(kind, colour, 1.0) for kind, colour in COLOURS.items() if kind in kinds]
    if times.ahead:
        found.insert(1, ("for later steps", COLOURS["rollout"], FADING))
    return found


def table(steps: Sequence[StepTimes]) -> dict[str, Any]:
    """What each step has spent on what, and a step of its run on average, as {`head`, `rows`}."""
    names = [name for name in COLOURS if any(name in times.mean for times in steps)]
    rows = []
    for times in steps:
        until = NOTHING if times.until_next is None else number(times.until_next)
        rows.append([f"{times.label}, step {times.step}", *_written(times.phases, names), until])
        rows.append([f"{times.label}, mean of {times.steps} steps", *_written(times.mean, names), NOTHING])
    return {"head": ["seconds", "step", *names, "until the next"], "rows": rows}


def _written(phases: Mapping[str, float], names: Sequence[str]) -> list[str]:
    total = sum(phases.values())
    shares = [f"{number(phases[name])} ({phases[name] / total:.0%})" if name in phases else NOTHING for name in names]
    return [number(total), *shares]


def _bar(times: StepTimes, work: Work, top: float, bottom: float) -> Row:
    what = work.kind if work.kind == "weights" else f"{work.kind} of step {times.step + work.ahead}"
    return {
        "x": work.began,
        "x2": work.ended,
        "y": top,
        "y2": bottom,
        "kind": "lost" if work.lost else work.kind,
        "opacity": 1 if work.lost else FADING**work.ahead,
        "who": f"sampler {work.sampler}",
        "what": f"{what}, lost" if work.lost else what,
        "which": work.name,
        "from": f"{number(work.began)} s".replace("-", "−"),
        "for": f"{number(work.ended - work.began)} s",
    }


def _phases(times: StepTimes) -> list[Row]:
    """The learner's lane. A bar that waits is there to be pointed at only."""
    rows, x = [], 0.0
    for phase, seconds in times.phases.items():
        waits = times.waits(phase)
        what = {"rollout": "waits for rollouts", "evaluation": "waits for the evaluation"}[phase] if waits else phase
        rows.append(
            {
                "x": x,
                "x2": x + seconds,
                "y": 0,
                "y2": LEARNER,
                "kind": phase,
                "opacity": 0 if waits else 1,
                "who": "learner",
                "what": what,
                "which": f"step {times.step}",
                "from": f"{number(x)} s",
                "for": f"{number(seconds)} s",
                "ink": css_variable("muted" if waits else "paper"),
            }
        )
        x += seconds
    return rows


def _ground(y: Spec, axis: Spec, opacity: float) -> Spec:
    """The lanes themselves, with an axis that names them."""
    return {
        "mark": {"type": "rect", "color": css_variable("line"), "opacity": opacity},
        "encoding": {"x": {"value": 0}, "x2": {"value": "width"}, "y": y | {"axis": axis}, "y2": {"field": "y2"}},
    }


def _axis(lanes: Sequence[Row], name: str) -> Spec:
    """Of words, not of numbers; they are ours alone, as they become part of an expression."""
    middles = [(lane["y"] + lane["y2"]) / 2 for lane in lanes]
    words = [lane[name] for lane in lanes]
    expression = f"{words}[indexof({middles}, datum.value)]"
    return {"values": middles, "labelExpr": expression, "grid": False, "title": None, "labelColor": css_variable("ink")}


def _bars(bars: Sequence[Row], y: Spec, seconds: float) -> Spec:
    colour = {"field": "kind", "type": "nominal", "legend": None}
    colour["scale"] = {"domain": list(COLOURS), "range": list(COLOURS.values())}
    opacity = {"field": "opacity", "type": "quantitative", "scale": None}
    return {
        "data": {"values": bars},
        "mark": {"type": "rect", "clip": True, "stroke": css_variable("raised"), "strokeWidth": 0.5},
        "encoding": {
            "x": _time(seconds),
            "x2": {"field": "x2"},
            "y": y,
            "y2": {"field": "y2"},
            "color": colour,
            "opacity": opacity,
            "tooltip": TOOLTIP,
        },
    }


def _words(phases: Sequence[Row], y: Spec, seconds: float) -> Spec:
    """The names of the learner's phases, where they have room."""
    fits = f"{LETTER} * length(datum.what) + 14 < (datum.x2 - datum.x) / {seconds} * width"
    return {
        "data": {"values": phases},
        "transform": [{"calculate": f"{fits} ? datum.what : ''", "as": "word"}],
        "mark": {"type": "text", "align": "left", "baseline": "middle", "dx": 7, "dy": LEARNER / 2, "fontSize": 12},
        "encoding": {
            "x": _time(seconds),
            "y": y,
            "text": {"field": "word"},
            "color": {"field": "ink", "scale": None},
            "tooltip": TOOLTIP,
        },
    }


def _time(seconds: float) -> Spec:
    x: Spec = {"field": "x", "type": "quantitative", "title": "seconds since the step began"}
    return x | {"scale": {"domain": [0, seconds], "nice": False}, "axis": {"grid": False, "tickCount": 8}}
