"""A language model's opinion on the purposes of some calls, beside that of the rules."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retool.analysis import Call, Exhibit, Purpose, agreement, prose, question, read_verdict
from retool.config.endpoint import EndpointConfig
from retool.endpoint import Endpoint
from retool.rollout.together import together
from retool.stages.progress import Progress
from retool.types import Trajectory


class Docket:
    """The calls that the judge will be asked about: `limit` of those that are offered, drawn by a hash of their names,
    so that the same calls are drawn whatever the order."""

    def __init__(self, limit: int | None):
        self._limit = limit
        self._drawn: list[tuple[int, int, Call, Exhibit]] = []  # a heap, the last to be drawn on top
        self._offered = 0

    def offer(self, trajectory: Trajectory, calls: list[Call]) -> None:
        pieces = prose(trajectory) if calls else []
        for call, made, before in zip(calls, trajectory.calls, pieces, strict=False):  # the last piece follows all
            self._offered += 1
            name = f"{trajectory.id}/{call.index}/{trajectory.step}"
            digest = hashlib.blake2b(name.encode(errors="backslashreplace"), digest_size=8).digest()
            exhibit = Exhibit(trajectory.problem.text, before, made.code, made.output)
            entry = (-int.from_bytes(digest, "big"), self._offered, call, exhibit)
            if self._limit is None or len(self._drawn) < self._limit:
                heapq.heappush(self._drawn, entry)
            else:
                heapq.heappushpop(self._drawn, entry)

    def __iter__(self) -> Iterator[tuple[Call, Exhibit]]:
        return ((call, exhibit) for _, _, call, exhibit in sorted(self._drawn, key=lambda entry: entry[1]))

    def __len__(self) -> int:
        return len(self._drawn)


async def judge(docket: Docket, config: EndpointConfig, cache: Path | None) -> dict[str, Any]:
    """What the judge says: `judged` as rows {arm, step, response, index, rules, judge}, and its `agreement` with the
    rules (`retool.analysis.agreement`). Temperature 0; replies are kept in `cache` unless the config names a folder."""
    with Progress("judge", len(docket)) as progress:
        async with Endpoint(config, cache=cache) as endpoint:

            async def ask(exhibit: Exhibit) -> Purpose | None:
                reply = await endpoint.chat([{"role": "user", "content": question(exhibit)}], temperature=0.0)
                progress.step_done()
                return read_verdict(reply.text)

            async with together() as group:
                asked = [(call, group.create_task(ask(exhibit))) for call, exhibit in docket]
    verdicts = [(call, task.result()) for call, task in asked]
    rows = [
        {
            "arm": call.arm,
            "step": call.step,
            "response": call.response,
            "index": call.index,
            "rules": call.purpose,
            "judge": verdict,
        }
        for call, verdict in verdicts
    ]
    found = agreement([(call.purpose, verdict) for call, verdict in verdicts])
    return {"judged": rows, "agreement": found | {"model": config.model}}
