"""The trajectories of a report as its page holds them: a list in columns, texts and tokens apart, all compressed.

The page must stay small enough to be sent to somebody, so it has a budget of bytes. Of what Vega leaves, at most three
quarters are for texts; what these and the charts leave is for per-token data, first of all of trajectories that were
learned from. What comes first is kept first, so the order in which trajectories are added is their order of precedence.
What did not fit is counted, and the page says so.
"""

from __future__ import annotations

import json
from collections import Counter
from math import isfinite
from typing import Any

from retool.reporting.chunks import Chunks, pack
from retool.reporting.entry import Entry
from retool.reporting.printable import printable
from retool.reporting.reading import spans_of
from retool.reporting.tokens import mean_gap, tokens_of
from retool.types import CallStatus, Problem

PAGE_BYTES = 40_000_000
_WITHOUT_ARCHIVE = 1_100_000  # bytes of a page: Vega, and what there always is
_SHARE_OF_TEXTS = 0.75
_ELEMENT = 60  # bytes around a chunk in the page


class Archive:
    """Trajectories, packed as they are added, so that no more than one of them is held in memory. `page_bytes` is what
    the page may take up with all that is in it."""

    def __init__(self, page_bytes: int = PAGE_BYTES):
        self._page_bytes = page_bytes
        self._texts, self._learned, self._sampled = Chunks("text"), Chunks("learned"), Chunks("sampled")
        self._rows: list[dict[str, Any]] = []
        self._tokens: list[tuple[str, int] | None] = []
        """Where the per-token data of each row are."""
        self._runs: dict[str, int] = {}
        self._problems: dict[Problem, int] = {}
        self._omitted: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def full(self) -> bool:
        return self._texts.bytes >= _SHARE_OF_TEXTS * (self._page_bytes - _WITHOUT_ARCHIVE)

    def omit(self, run: str, count: int = 1) -> None:
        """Count trajectories of `run` as left out."""
        self._omitted[run] += count

    def add(self, entry: Entry) -> None:
        """Keep `entry`, or count it as left out if the archive is full."""
        if self.full:
            self.omit(entry.run)
            return
        chunk, place = self._texts.add(_text_of(entry))
        self._rows.append(self._row_of(entry) | {"chunk": chunk, "place": place})
        store = self._sampled if entry.learner is None else self._learned
        room = self._page_bytes - self._texts.bytes - self._learned.bytes - self._sampled.bytes
        tokens = tokens_of(entry) if room > 0 else None
        self._tokens.append(None if tokens is None else store.add(tokens))

    def chunks(self, spent: int = 0) -> dict[str, str]:
        """All chunks by name, with per-token data as far as there is room in a page that has `spent` bytes on other
        things. Nothing can be added after it."""
        for store in (self._texts, self._learned, self._sampled):
            store.close()
        kept, room = dict(self._texts.packed), self._page_bytes - spent - self._texts.bytes - len(self.columns())
        for name, packed in (self._learned.packed | self._sampled.packed).items():
            size = len(packed) + _ELEMENT
            if size <= room:
                kept[name] = packed
                room -= size
        self._tokens = [place if place and place[0] in kept else None for place in self._tokens]
        return kept

    def columns(self) -> str:
        """What the list of trajectories shows and sorts by, packed; to be asked for after `chunks`."""
        tokens = {
            "token_chunk": [None if place is None else place[0] for place in self._tokens],
            "token_place": [None if place is None else place[1] for place in self._tokens],
        }
        columns = {name: [row[name] for row in self._rows] for name in self._rows[0]} if self._rows else {}
        problems = [
            {
                "id": printable(p.id),
                "text": printable(p.text),
                "answer": printable(p.answer),
                "source": printable(p.source),
            }
            for p in self._problems
        ]
        runs = [printable(run) for run in self._runs]
        return pack(json.dumps({"runs": runs, "problems": problems, "rows": columns | tokens}, ensure_ascii=False))

    def notes(self) -> list[str]:
        """What was left out, in sentences; to be asked for after `chunks`."""
        notes = []
        if self._omitted:
            counts = ", ".join(f"{count:,} of {run}" for run, count in self._omitted.items())
            notes.append(
                f"{len(self):,} of {len(self) + self._omitted.total():,} trajectories are in this page; no room was "
                f"left for {counts}. Evaluations and the ends of training come first."
            )
        without = sum(
            row["length"] is not None and not tokens for row, tokens in zip(self._rows, self._tokens, strict=True)
        )
        if without:
            notes.append(
                f"{without:,} of {len(self):,} trajectories are here without per-token data: no room was left."
            )
        return notes

    def _row_of(self, entry: Entry) -> dict[str, Any]:
        trajectory = entry.trajectory
        failed = sum(call.status is not CallStatus.OK for call in trajectory.calls)
        return {
            "run": self._runs.setdefault(entry.run, len(self._runs)),
            "origin": entry.origin,
            "step": entry.step,
            "problem": self._problems.setdefault(trajectory.problem, len(self._problems)),
            "sample": trajectory.sample,
            "correct": int(trajectory.correct),
            "answer": None if trajectory.answer is None else printable(trajectory.answer),
            "stop": trajectory.stop,
            "calls": len(trajectory.calls),
            "ran": len(trajectory.executed),
            "failed": failed,
            "corrected": len(entry.corrections),
            "length": trajectory.tokens() or None,
            "characters": sum(len(span.text) for span in trajectory.spans),
            "reward": finite(trajectory.reward.get("total")),
            "seconds": finite(trajectory.timing.get("seconds")),
            "gap": finite(mean_gap(entry)),
        }


def _text_of(entry: Entry) -> dict[str, Any]:
    """What the page shows of a trajectory that is read, beside what the list knows."""
    trajectory = entry.trajectory
    calls: list[dict[str, Any]] = [{"status": call.status} for call in trajectory.calls]
    for call, purpose in zip(calls, entry.purposes, strict=bool(entry.purposes)):
        call["purpose"] = purpose
    for call, seconds in zip(calls, entry.seconds, strict=bool(entry.seconds)):
        if seconds is not None:
            call |= {"queue": finite(seconds.queue), "run": finite(seconds.run)}
    return {
        "id": printable(trajectory.id),
        "arm": printable(trajectory.arm),
        "model": printable(trajectory.model),
        "protocol": printable(trajectory.protocol),
        "prompt": None if entry.prompt is None else printable(entry.prompt),
        "spans": spans_of(trajectory),
        "calls": calls,
        "corrections": [
            {"failed": c.failed, "fixed": c.fixed, "error": printable(c.error), "diagnosis": printable(c.diagnosis)}
            for c in entry.corrections
        ],
        "rewards": {printable(name): finite(value) for name, value in trajectory.reward.items()},
        "token_exact": trajectory.token_exact,
        "timing": {printable(name): finite(value) for name, value in trajectory.timing.items()},
        "in_loss": entry.in_loss,
    }


def finite(value: float | None) -> float | None:
    """`value` as JSON can hold it, to five digits; None stands for what is no number."""
    return None if value is None or not isfinite(value) else float(f"{value:.5g}")
