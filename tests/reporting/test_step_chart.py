"""The chart of one step: who did what when, and who waited."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import vl_convert
from demo_run import step_times
from hypothesis import given
from hypothesis import strategies as st

from parsed_page import page_of
from retool.reporting import Report, StepTimes, Work
from retool.reporting.charts import config
from retool.reporting.step_chart import MOST_SAMPLERS, legend, said, step_chart, table
from retool.reporting.step_times import Lane

PHASES = {"rollout": 4.0, "update": 3.0, "weights": 1.0, "evaluation": 2.0}
TWO_SAMPLERS = (
    Work(0, "rollout", -1.0, 2.0, "g1"),
    Work(0, "rollout", 0.0, 4.0, "g2"),
    Work(0, "rollout", 2.0, 12.0, "g3", ahead=2),
    Work(1, "rollout", 1.0, 4.0, "g4", lost=True),
    Work(0, "weights", 7.0, 8.0, "version 5"),
    Work(1, "weights", 7.0, 7.5, "version 5"),
    Work(1, "evaluation", 8.0, 10.0, "h1"),
)


def step(*work: Work, samplers: int = 0) -> StepTimes:
    """Of 10 seconds."""
    return StepTimes(label="a", step=5, steps=9, phases=PHASES, mean=PHASES, samplers=samplers, work=work)


def bars(times: StepTimes) -> list[dict[str, Any]]:
    return step_chart(times)["layer"][-2]["data"]["values"]


def lanes(times: StepTimes) -> list[str]:
    return [lane["name"] for lane in step_chart(times)["data"]["values"]]


def test_on_one_machine_there_is_one_lane_of_phases_and_nobody_waits() -> None:
    assert lanes(step()) == ["learner"]
    assert [(bar["what"], bar["x"], bar["x2"], bar["opacity"]) for bar in bars(step())] == [
        ("rollout", 0, 4, 1),
        ("update", 4, 7, 1),
        ("weights", 7, 8, 1),
        ("evaluation", 8, 10, 1),
    ]
    assert said(step()) == "It took 10.0 s."


def test_on_a_cluster_the_learner_waits_for_rollouts_and_evaluations() -> None:
    times = step(*TWO_SAMPLERS, samplers=2)
    assert lanes(times) == ["learner", "sampler 0", "sampler 1"]
    own = [(bar["what"], bar["opacity"]) for bar in bars(times) if bar["who"] == "learner"]
    assert own == [("waits for rollouts", 0), ("update", 1), ("weights", 1), ("waits for the evaluation", 0)]
    assert times.learner_busy == pytest.approx(0.4)


def test_a_sampler_is_busy_as_far_as_its_lane_is_covered() -> None:
    """Two rows of 10 seconds: 10 + 4 and, not covered by a group already, 1 second of weights; 3 + 2 and twice 0.5."""
    times = step(*TWO_SAMPLERS, samplers=2)
    assert times.busy == pytest.approx([15 / 20, 6 / 20])
    assert said(times) == (
        "It took 10.0 s: the learner waited for 60% of it, the 2 samplers were 52% busy, in part with groups of the "
        "next 2 steps."
    )


def test_a_sampler_with_nothing_to_do_has_an_empty_lane() -> None:
    times = step(*TWO_SAMPLERS, samplers=3)
    assert lanes(times)[3] == "sampler 2"
    assert times.busy[2] == 0


def test_groups_of_later_steps_are_paler_and_lost_ones_are_marked() -> None:
    drawn = {bar["which"]: bar for bar in bars(step(*TWO_SAMPLERS, samplers=2))}
    assert drawn["g2"]["opacity"] == 1 > drawn["g3"]["opacity"] > 0
    assert drawn["g3"]["what"] == "rollout of step 7"
    assert (drawn["g4"]["kind"], drawn["g4"]["what"]) == ("lost", "rollout of step 5, lost")
    names = [name for name, _, _ in legend(step(*TWO_SAMPLERS, samplers=2))]
    assert names == ["rollout", "for later steps", "update", "weights", "evaluation", "lost"]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10)), max_size=30))
def test_groups_of_a_lane_never_overlap_and_take_no_more_rows_than_there_are_at_a_time(found) -> None:
    lane = Lane.of([Work(0, "rollout", began, began + length) for began, length in found])
    seen = {}
    for row, work in lane.groups:
        assert seen.get(row, 0) <= work.began
        seen[row] = work.ended
    most = max((sum(b <= t < b + n for b, n in found) for t in range(40)), default=0)
    assert lane.rows == max(1, most)


def test_bars_of_samplers_stay_within_their_lanes() -> None:
    times = step(*TWO_SAMPLERS, samplers=2)
    ground = {lane["name"]: (lane["y"], lane["y2"]) for lane in step_chart(times)["data"]["values"]}
    for bar in bars(times):
        top, bottom = ground[bar["who"]]
        assert top <= bar["y"] < bar["y2"] <= bottom + 1e-9
    tops = sorted(ground.values())
    assert all(before[1] < after[0] for before, after in pairwise(tops))


def test_of_very_many_samplers_the_first_have_lanes_and_the_page_says_so() -> None:
    many = step(*(Work(sampler, "rollout", 0.0, 5.0) for sampler in range(100)), samplers=100)
    assert len(lanes(many)) == 1 + MOST_SAMPLERS
    assert step_chart(many)["height"] < 1000
    assert said(many).endswith("Shown are the first 32 samplers.")


def test_the_table_has_seconds_and_shares_of_the_step_and_of_all_steps() -> None:
    other = StepTimes(label="b", step=1, steps=2, phases={"rollout": 1.0}, mean={"rollout": 1.5}, until_next=0.25)
    assert table([step(), other]) == {
        "head": ["seconds", "step", "rollout", "update", "weights", "evaluation", "until the next"],
        "rows": [
            ["a, step 5", "10.0", "4 (40%)", "3 (30%)", "1 (10%)", "2 (20%)", "–"],
            ["a, mean of 9 steps", "10.0", "4 (40%)", "3 (30%)", "1 (10%)", "2 (20%)", "–"],
            ["b, step 1", "1", "1 (100%)", "–", "–", "–", "0.25"],
            ["b, mean of 2 steps", "1.5", "1.5 (100%)", "–", "–", "–", "–"],
        ],
    }


def test_a_page_has_a_chart_for_each_run_and_none_without_times(tmp_path) -> None:
    page = page_of(Report(title="t", step_times=step_times()), tmp_path)
    assert set(page.drawings["charts"]) == {"step-ReTool", "step-text-only RL"}
    assert "waited for" in page.text
    assert 'id="time"' not in page_of(Report(title="t"), tmp_path).html


def test_the_chart_draws_as_a_picture() -> None:
    spec = step_chart(step_times()[0]) | {"config": config(), "width": 600}
    svg = vl_convert.vegalite_to_svg(spec)
    for word in ("learner", "sampler 2", "busy", "update", "seconds since the step began"):
        assert word in svg
