"""Plots of the sweeps, as Vega-Lite in the look of the reports, drawn to PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import vl_convert

from retool.files import publish
from retool.reporting import charts, theme

Row = dict[str, Any]
Results = dict[str, list[Row]]
WIDTH, HEIGHT = 330, 210
_PARTS = ("sampling", "learning")
_LABELS = {"sync": "sync, colocated", "one_step_off": "one step off", "async": "async"}


def draw(results: Results, folder: Path) -> list[Path]:
    """Write the plots of all sweeps that there are."""
    drawn = []
    for name, views in (("gpus", _gpus), ("splits", _splits), ("tails", _tails)):
        path = folder / f"scaling-{name}.png"
        spec = {"hconcat": views(results), "spacing": 40, "padding": 16, "resolve": {"scale": {"color": "independent"}}}
        spec |= {"config": charts.config() | {"background": theme.LIGHT["paper"]}}
        publish(path, vl_convert.vegalite_to_png(theme.resolve(spec, theme.LIGHT), scale=1.5, allowed_base_urls=[]))
        drawn.append(path)
    return drawn


def _gpus(results: Results) -> list[charts.Spec]:
    rows = _labelled(results["gpus"])
    fixed = [row for row in rows if row["batch"] == "2,048"]
    grown = [row for row in rows if row["batch"] != "2,048"]
    x = _axis("gpus", "GPUs", scale={"type": "log", "base": 2})
    share = _share("utilisation", "time well spent")
    rate = _axis("trajectories_per_second", "trajectories / s", scale={"type": "log"})
    return [
        _lines(fixed, x, share, "A batch of 2,048"),
        _lines(grown, x, share, "A batch of 16 a GPU"),
        _lines(fixed, x, rate, "Speed, a batch of 2,048"),
    ]


def _splits(results: Results) -> list[charts.Spec]:
    split = [row | {"label": part, "shown": row[part]} for row in results["split"] for part in _PARTS]
    stale = [row | {"label": f"{row['gpus']} GPUs"} for row in results["staleness"]]
    x = _axis("share", "share of 128 GPUs that sample", axis={"format": "%"})
    bound = _axis("bound", "staleness bound", scale={"type": "log", "base": 2}, axis={"values": [1, 2, 4, 8]})
    return [
        _lines(split, x, _share("shown", "of their time"), "Samplers and learners, async"),
        _lines(stale, bound, _share("utilisation", "time well spent"), "Versions behind"),
    ]


def _tails(results: Results) -> list[charts.Spec]:
    rate = _axis("trajectories_per_second", "trajectories / s", scale={"zero": True})
    sigma = _axis("sigma", "sigma of the lengths")
    seconds = _axis("tool_seconds", "seconds a call", scale={"type": "log"})
    tails = {mean: [row for row in _labelled(results["tail"]) if row["mean"] == mean] for mean in (10000, 6000)}
    tools = [row | {"label": f"{row['mode']}, {row['workers']} calls at a time"} for row in results["tools"]]
    return [
        _lines(tails[10000], sigma, rate, "Tails, mean 10,000 tokens"),
        _lines(tails[6000], sigma, rate, "Tails, mean 6,000 tokens"),
        _lines(tools, seconds, rate, "Slow tools"),
    ]


def _labelled(rows: list[Row]) -> list[Row]:
    return [row | {"label": _LABELS[row["mode"]]} for row in rows]


def _axis(name: str, title: str, **more: Any) -> dict[str, Any]:
    return {"field": name, "type": "quantitative", "title": title, **more}


def _share(name: str, title: str) -> dict[str, Any]:
    return _axis(name, title, scale={"domain": [0, 1]}, axis={"format": "%"})


def _lines(rows: list[Row], x: Any, y: Any, title: str) -> charts.Spec:
    """A line for each label; the modes have the same colours everywhere."""
    present = list(dict.fromkeys(row["label"] for row in rows))
    modes = list(_LABELS.values())
    colours = theme.assign_colours([], modes if set(present) <= set(modes) else present)
    scale = {"domain": present, "range": [colours[label] for label in present]}
    encoding = {"x": x, "y": y, "color": {"field": "label", "type": "nominal", "scale": scale}}
    encoding["color"]["legend"] = {"orient": "bottom", "columns": 1}
    return {
        "title": title,
        "width": WIDTH,
        "height": HEIGHT,
        "data": {"values": rows},
        "mark": {"type": "line", "point": True, "strokeWidth": 2.2},
        "encoding": encoding,
    }
