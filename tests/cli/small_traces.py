"""A few verified traces, as `retool synth` would have made them."""

from __future__ import annotations

import json
from pathlib import Path

from retool.types import CallStatus, Kind, Problem, Segment, Trace


def write_traces(path: Path) -> Path:
    rows = []
    for n in range(2, 8):
        problem = Problem(f"p{n}", f"What is {n} times 7?", str(7 * n), "test")
        segments = (
            Segment(Kind.TEXT, f"We need {n} * 7."),
            Segment(Kind.CODE, f"print({n} * 7)"),
            Segment(Kind.RESULT, str(7 * n), CallStatus.OK),
            Segment(Kind.TEXT, f"So the answer is \\boxed{{{7 * n}}}."),
        )
        rows.append(Trace(problem, segments).to_json())
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
