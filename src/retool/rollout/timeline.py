"""Who did what when, as a file that opens in Perfetto (https://ui.perfetto.dev) or in chrome://tracing.

The format is the JSON of the Trace Event Format: complete events (`ph: X`, microseconds) on tracks, which metadata
events (`ph: M`) name. One process holds a track for each trajectory, another one the sampler's own phases.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

TRAJECTORIES, SAMPLER = "trajectories", "sampler"


class _Slice(NamedTuple):
    process: str
    track: str
    name: str
    start: float
    end: float
    facts: dict[str, Any]


class Timeline:
    """Collects what lasts from `start` to `end`, both in seconds of `time.perf_counter`."""

    def __init__(self) -> None:
        self._slices: list[_Slice] = []

    def add(self, track: str, name: str, start: float, end: float, process: str = TRAJECTORIES, **facts: Any) -> None:
        """Slices of one track must lie side by side or one inside the other. `facts` are shown with the slice."""
        self._slices.append(_Slice(process, track, name, start, end, facts))

    def add_phase(self, name: str, start: float, end: float) -> None:
        """A phase of the sampler: what `Sampler.on_phase` asks for."""
        self.add("phases", name, start, end, SAMPLER)

    def to_json(self) -> str:
        """The events, outer slices before inner ones; the first slice begins at 0."""
        zero = min((piece.start for piece in self._slices), default=0.0)
        pids = {SAMPLER: 1, TRAJECTORIES: 2}
        tids: dict[tuple[str, str], int] = {}
        events = []
        slices = sorted(self._slices, key=lambda piece: (piece.start, -piece.end))
        for process, track, name, start, end, facts in slices:
            tid = tids.setdefault((process, track), len(tids) + 1)
            # Rounded before they are subtracted, so that an inner slice never ends after the outer one.
            begin, finish = round((start - zero) * 1e9), round((end - zero) * 1e9)
            place = {"ph": "X", "pid": pids[process], "tid": tid, "ts": begin / 1000, "dur": (finish - begin) / 1000}
            events.append({"name": name, "cat": process, **place, "args": facts})
        names = [_name("process_name", pid, 0, process) for process, pid in pids.items()]
        names += [_name("thread_name", pids[process], tid, track) for (process, track), tid in tids.items()]
        return json.dumps({"traceEvents": names + events, "displayTimeUnit": "ms"})


def _name(kind: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}}
