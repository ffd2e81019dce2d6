"""Dynamic sampling: a step draws further problems until enough of its groups have something to compare."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_run import assert_same, reinforce, small_config

from retool.errors import UsageError
from retool.objectives.registry import register
from retool.runs import RunFolder, read_rows
from retool.types import Author, Trajectory

DAPO = ("threads=1", "rl.algorithm=dapo", "rl.eval_every=0", "rl.steps=2")


@register("reward", "even_length")
def even_length(trajectory: Trajectory) -> dict[str, float]:
    """About as often 1 as 0: half of the groups of two differ."""
    return {"total": float(trajectory.spans[0].ids[0] % 2)}


@register("reward", "nothing")
def nothing(trajectory: Trajectory) -> dict[str, float]:
    return {"total": 0.0}


def groups(trajectories: list[Trajectory]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for trajectory in trajectories:
        found.setdefault(trajectory.group, []).append(trajectory.reward["total"])
    return found


@pytest.fixture(scope="module")
def run(cold: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    config = small_config(*DAPO, "rl.refill=3", "rl.reward=even_length")
    return reinforce(config, cold, tmp_path_factory.mktemp("refilled") / "rl")


def test_rounds_go_on_until_there_are_enough_groups_or_rounds(run: RunFolder) -> None:
    rounds = []
    for row, trajectories in zip(read_rows(run.metrics), run.read_trajectories().values(), strict=True):
        differ = sum(len(set(rewards)) > 1 for rewards in groups(trajectories).values())
        assert row["trained"] == 2 * differ
        assert differ == 4 or row["refill_rounds"] == 3
        rounds.append(row["refill_rounds"])
    assert max(rounds) >= 1


def test_no_problem_comes_twice_and_another_step_draws_others(run: RunFolder) -> None:
    by_step = {step: list(groups(found)) for step, found in run.read_trajectories().items()}
    assert all(len(found) == 2 for step in by_step for found in groups(run.read_trajectories()[step]).values())
    problems = {step: {name.rpartition("/")[2] for name in names} for step, names in by_step.items()}
    assert problems[1] != problems[2]


def test_what_all_rounds_cost_is_added_up(run: RunFolder) -> None:
    for row, trajectories in zip(read_rows(run.timings), run.read_trajectories().values(), strict=True):
        assert row["trajectories"] == len(trajectories)
        assert row["model_tokens"] == sum(t.tokens(Author.MODEL) for t in trajectories)
        assert 0 < row["occupancy"] <= 1
        assert row["occupancy"] == row["row_steps"] / (row["decode_steps"] * 8)


def test_it_is_a_function_of_the_seed(run: RunFolder, cold: Path, tmp_path: Path) -> None:
    config = small_config(*DAPO, "rl.refill=3", "rl.reward=even_length")
    assert_same(reinforce(config, cold, tmp_path), run)


def test_it_ends_where_there_are_no_further_problems(cold: Path, tmp_path: Path) -> None:
    config = small_config(*DAPO, "rl.refill=9", "rl.reward=nothing", "rl.steps=1", "data.limit=6")
    run = reinforce(config, cold, tmp_path)
    (row,) = read_rows(run.metrics)
    assert row["refill_rounds"] == 1 and row["trained"] == 0
    assert len(groups(run.read_trajectories()[1])) == 6


def test_without_the_filter_there_is_nothing_to_make_up_for(cold: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"rl.refill=2 makes up for .* equal_rewards .* rl.algorithm=dapo"):
        reinforce(small_config("rl.refill=2"), cold, tmp_path / "rl")
    assert not (tmp_path / "rl").exists()
