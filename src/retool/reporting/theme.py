"""Colours, light and dark. The page takes them as CSS variables, and so do its charts: one drawing fits every theme."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

LIGHT = {
    "paper": "#ffffff",
    "surface": "#f5f7f9",
    "raised": "#ffffff",
    "line": "#dfe5ea",
    "ink": "#14202b",
    "muted": "#5a6875",
    "series-1": "#0b7f79",
    "series-2": "#d4661a",
    "series-3": "#6a4fc9",
    "series-4": "#bf3a6b",
    "neutral-1": "#75828f",
    "neutral-2": "#a9b4bf",
    "good": "#14794a",
    "bad": "#b3363e",
    "good-wash": "#e3f4ea",
    "bad-wash": "#fbe9ea",
    "result": "#8a6a12",
    "result-wash": "#fbf6e6",
    "picked": "#e4f2f1",
    "found": "#ffe08a",
    "code-wash": "#f3f6f8",
    "code-keyword": "#7b3fb5",
    "code-string": "#24713a",
    "code-number": "#a5510b",
    "code-name": "#0f5fa8",
}
DARK = {
    "paper": "#0e1419",
    "surface": "#151d24",
    "raised": "#182129",
    "line": "#2b3640",
    "ink": "#e7edf2",
    "muted": "#98a6b3",
    "series-1": "#3ecabd",
    "series-2": "#f5a25d",
    "series-3": "#ab94fb",
    "series-4": "#f283a9",
    "neutral-1": "#8f9ba7",
    "neutral-2": "#64717d",
    "good": "#5fd39a",
    "bad": "#f28b90",
    "good-wash": "#153326",
    "bad-wash": "#3a1f23",
    "result": "#e2c15f",
    "result-wash": "#262113",
    "picked": "#1a2f31",
    "found": "#6b5516",
    "code-wash": "#0f161c",
    "code-keyword": "#c8a3f5",
    "code-string": "#8fd6a0",
    "code-number": "#f0ae77",
    "code-name": "#86c3f5",
}
SERIES = ("series-1", "series-2", "series-3", "series-4")
NEUTRALS = ("neutral-1", "neutral-2")


def css_variable(name: str) -> str:
    return f"var(--{name})"


def assign_colours(systems: Sequence[str], arms: Sequence[str]) -> dict[str, str]:
    """A colour for each label. Arms get the strong ones; systems without curves stand back in grey.

    Without any arm the systems themselves are the subject and get the strong colours.
    """
    strong = list(arms or systems)
    grey = [label for label in systems if label not in strong]
    colours = {label: css_variable(SERIES[i % len(SERIES)]) for i, label in enumerate(strong)}
    return colours | {label: css_variable(NEUTRALS[i % len(NEUTRALS)]) for i, label in enumerate(grey)}


def resolve(spec: dict[str, Any], palette: dict[str, str]) -> dict[str, Any]:
    """The Vega-Lite `spec` with its CSS variables replaced by colours of `palette`, for drawing outside a browser."""
    return json.loads(re.sub(r"var\(--([a-z0-9-]+)\)", lambda match: palette.get(match[1], match[0]), json.dumps(spec)))
