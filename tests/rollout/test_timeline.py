"""The record of a batch adds up, and its timeline is a valid trace in which overlapping work is seen to overlap."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest
from worlds import END, PROBLEM, FakeSandbox, PacedSampler, agent, call, ids_of, protocol_of, sleeps, task

from retool.rollout.meter import Meter
from retool.rollout.timeline import Timeline
from retool.sandbox import Result
from retool.types import Author, CallStatus

ANSWER = "So \\boxed{84}." + END


def events(timeline: Timeline) -> dict[str, list[dict[str, Any]]]:
    """The slices of each track, by its name, after checking all that the format and its viewer ask for."""
    trace = json.loads(timeline.to_json())
    assert set(trace) == {"traceEvents", "displayTimeUnit"}
    names: dict[tuple[int, int], str] = {}
    tracks: dict[str, list[dict[str, Any]]] = defaultdict(list)
    processes = {e["pid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "process_name"}
    for event in trace["traceEvents"]:
        assert {"name", "ph", "pid", "tid", "args"} <= set(event)
        if event["ph"] == "M":
            if event["name"] == "thread_name":
                names[event["pid"], event["tid"]] = event["args"]["name"]
            continue
        assert event["ph"] == "X" and event["ts"] >= 0 and event["dur"] >= 0
        tracks[f"{processes[event['pid']]}: {names[event['pid'], event['tid']]}"].append(event)
    for slices in tracks.values():
        open_until: list[float] = []
        for slice_ in slices:  # in order of time: each lies inside the one that is open, or after it
            while open_until and slice_["ts"] >= open_until[-1]:
                open_until.pop()
            end = round(slice_["ts"] + slice_["dur"], 3)
            assert not open_until or end <= open_until[-1]
            open_until.append(end)
    return tracks


def overlap(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Microseconds that two slices have in common."""
    ends = [event["ts"] + event["dur"] for event in (one, other)]
    return min(ends) - max(one["ts"], other["ts"])


@pytest.fixture(scope="module")
def batch() -> tuple[Meter, Timeline, list]:
    """Two trajectories, one of which waits for a slow tool while the other goes on decoding."""
    protocol = protocol_of("tags")
    tasks = [task(protocol, 0), task(protocol, 1, replace(PROBLEM, text="Other?"))]
    caller = tuple(tasks[0].prompt_ids)

    def script(ids: list[int]) -> list[int]:
        return ids_of(protocol, call(protocol, "slow()") if tuple(ids) == caller else "word " * 30 + ANSWER)

    class Phased(PacedSampler):
        async def extend(self, *arguments: Any) -> Any:
            if self.on_phase:
                self.on_phase("prefill", 1e-3, 2e-3)
            return await super().extend(*arguments)

    timeline = Timeline()
    meter, sampler = Meter(timeline), Phased(script, pace=0.001)
    sampler.on_phase = timeline.add_phase
    rolled = agent(protocol, sampler, sleeps(0.02), meter)

    async def main() -> list:
        return list(await asyncio.gather(*map(rolled.run, tasks)))

    return meter, timeline, asyncio.run(main())


def test_each_trajectory_has_a_track_and_the_sampler_one_of_its_own(batch: tuple) -> None:
    tracks = events(batch[1])
    assert set(tracks) == {"trajectories: ReTool/1/p/0", "trajectories: ReTool/1/p/1", "sampler: phases"}
    assert [e["name"] for e in tracks["trajectories: ReTool/1/p/0"]] == [
        *("model", "interpreter call", "queue", "run", "model")
    ]
    assert [e["name"] for e in tracks["sampler: phases"]] == ["prefill"] * 3


def test_a_slow_tool_overlaps_with_the_decoding_of_another_trajectory(batch: tuple) -> None:
    tracks = events(batch[1])
    waiting = next(e for e in tracks["trajectories: ReTool/1/p/0"] if e["name"] == "run")
    [decoding] = tracks["trajectories: ReTool/1/p/1"]
    assert waiting["dur"] >= 20_000
    assert overlap(waiting, decoding) > 0


def test_the_record_counts_what_the_trajectories_hold(batch: tuple) -> None:
    meter, _, trajectories = batch
    record = meter.record()
    assert record["trajectories"] == 2 and record["cancelled"] == 0
    for author in Author:
        assert record[f"{author}_tokens"] == sum(t.tokens(author) for t in trajectories) > 0
    assert record["prompt_tokens"] == sum(len(t.prompt_ids) for t in trajectories)
    assert record["tool_calls"] == 1
    assert 0.02 <= record["tool_run_seconds"] <= record["tool_seconds"]
    assert record["tool_seconds"] == pytest.approx(sum(t.timing["tool_seconds"] for t in trajectories), abs=0.01)
    assert record["model_seconds"] > 0.03
    assert meter.waiting == 0


def test_the_meter_says_how_many_wait_for_tools_now(batch: tuple) -> None:
    protocol, seen = protocol_of("tags"), []
    meter = Meter(on_change=lambda meter: seen.append(meter.waiting))
    turns = iter([call(protocol, "1"), ANSWER])
    rolled = agent(protocol, PacedSampler(lambda _: ids_of(protocol, next(turns))), sleeps(0), meter)
    asyncio.run(rolled.run(task(protocol)))
    assert max(seen) == 1 and seen[-1] == 0


def test_calls_side_by_side_have_tracks_side_by_side() -> None:
    protocol, timeline = protocol_of("native"), Timeline()

    async def answer(code: str) -> Result:
        await asyncio.sleep(0.02)
        return Result(CallStatus.OK, code, wall_s=0.01, queue_s=0.01)

    turns = iter([protocol.write_call("1") + protocol.write_call("2") + END, ANSWER])
    sampler = PacedSampler(lambda _: ids_of(protocol, next(turns)))
    asyncio.run(agent(protocol, sampler, FakeSandbox(answer), Meter(timeline)).run(task(protocol)))
    tracks = events(timeline)
    runs = [next(e for e in slices if e["name"] == "run") for slices in tracks.values()]
    assert [e["args"]["status"] for e in runs] == ["ok", "ok"]
    assert overlap(*runs) > 0
