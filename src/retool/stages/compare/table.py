"""A comparison in words and columns, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from retool.reporting import printable

_LONGEST = 60  # characters of a setting's value


def comparison_lines(found: dict[str, Any]) -> Iterator[str]:
    """The lines of what `compare_evaluations` found; what makes the two hard to compare comes last."""
    first, second = found["systems"]
    yield f"first   {printable(first['path'])}  ({printable(first['model'])})"
    yield f"second  {printable(second['path'])}  ({printable(second['model'])})"
    yield ""
    rows = {"all": found["comparison"]} | found["sets"]
    width = max(len(printable(name)) for name in rows)
    yield f"{'':{width}}  problems   first  second  difference  95 % interval     p        better/worse/equal"
    for name, row in rows.items():
        yield f"{printable(name):{width}}  {_columns(row)}"
    yield ""
    yield from _warnings(found)


def _columns(row: dict[str, Any]) -> str:
    before, after = row["accuracy"]
    low, high = row["ci95"]
    return (
        f"{row['problems']:8}  {before:6.3f}  {after:6.3f}  {row['difference']:+10.3f}  {low:+.3f}..{high:+.3f}"
        f"  {row['p_value']:<7.2g}  {row['better']}/{row['worse']}/{row['equal']}"
    )


def _warnings(found: dict[str, Any]) -> Iterator[str]:
    missing, added = found["comparison"]["only"]
    if missing or added:
        yield f"not shared, and left out: {missing} problems of the first, {added} of the second"
    if found["relabelled"]:
        yield f"WARNING: {found['relabelled']} shared problems have another reference answer in the second"
    if found["protocol"] is None:
        yield "WARNING: the protocols are unknown: there is no results.json beside the samples of both"
    elif found["protocol"]:
        yield "WARNING: the protocols differ, so the difference is not the model's alone:"
        for key, (before, after) in found["protocol"].items():
            yield f"  {key}: {_short(before)} → {_short(after)}"
    else:
        yield "the protocols are the same"


def _short(value: Any) -> str:
    text = printable(str(value)).replace("\n", "⏎")
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
