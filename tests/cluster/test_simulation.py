"""The discrete-event simulation, where a closed form says what must come out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

simpy = pytest.importorskip("simpy", reason="the simulation needs SimPy")


@pytest.fixture(autouse=True, scope="module")
def benchmarks() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        yield


@dataclass(frozen=True)
class Step:
    """A decode step in simulated time: so long whatever the rows, and so much for each token in the cache."""

    seconds: float = 0.1
    token_seconds: float = 0.0

    def fixed(self, rows: float) -> float:
        return self.seconds


def system(**settings: object) -> object:
    from scaling.simulation import System

    return replace(System(samplers=1, rows=4, step=Step(), read_seconds=0.0, batch=4), **settings)


def outcome(turns: list, steps: int = 1, **settings: object) -> object:
    from scaling.simulation import simulate

    return simulate(system(**settings), turns, steps)


def responses(*lengths: int) -> list:
    from scaling.workload import Turn

    return [(Turn(0, length, None),) for length in lengths]


@given(st.lists(st.integers(1, 50), min_size=4, max_size=4))
def test_a_batch_that_has_a_row_each_takes_as_long_as_its_longest_response(lengths: list[int]) -> None:
    assert outcome(responses(*lengths)).seconds == pytest.approx(0.1 * max(lengths))


def test_rows_that_wait_start_where_others_end() -> None:
    assert outcome(responses(10, 30, 20, 20), rows=2).seconds == pytest.approx(0.1 * 50)  # 10 then 20, then 20 more


def test_a_token_in_the_cache_makes_every_later_step_longer() -> None:
    """Of responses of 50 to 100 tokens, step k feeds those that are longer than k, each with k tokens in the cache."""
    lengths = (50, 80, 100, 100)
    found = outcome(responses(*lengths), step=Step(0.1, 0.001)).seconds
    steps = [0.1 + 0.001 * k * sum(length > k for length in lengths) for k in range(100)]
    assert found == pytest.approx(sum(steps), rel=0.02)


def test_a_call_takes_its_time_and_its_result_is_read() -> None:
    from scaling.workload import Turn

    turns = [(Turn(3, 10, 2.0), Turn(5, 10, None))]
    assert outcome(turns, batch=1, read_seconds=0.01).seconds == pytest.approx(2.0 + 20 * 0.1 + 8 * 0.01)


def test_calls_wait_where_the_sandbox_runs_few_at_a_time() -> None:
    from scaling.workload import Turn

    turns = [(Turn(0, 1, 1.0), Turn(0, 1, None))] * 4
    assert outcome(turns, workers=4).seconds == pytest.approx(1.0 + 0.2)
    assert outcome(turns, workers=1).seconds == pytest.approx(4.0 + 0.2)


def test_two_samplers_halve_what_one_needs_for_twice_its_rows() -> None:
    turns = responses(*[20] * 16)
    one, two = (outcome(turns, samplers=n, batch=16).seconds for n in (1, 2))
    assert one == pytest.approx(2 * two)


@pytest.mark.parametrize(("mode", "seconds"), [("sync", 2.0 + 3.0 + 0.5), ("one_step_off", 3.0 + 0.5), ("async", 3.5)])
def test_what_overlaps_counts_once(mode: str, seconds: float) -> None:
    """Sampling takes 2 s, learning 3 s, handing over the weights 0.5 s."""
    settings = {"mode": mode, "learn_seconds": lambda tokens: 3.0, "transfer_seconds": 0.5}
    assert outcome(responses(*[20] * 64), 9, **settings).step_seconds == pytest.approx(seconds, rel=0.05)


@pytest.mark.parametrize("bound", [1, 2, 4])
@pytest.mark.parametrize("learning", [0.5, 20.0])
def test_nothing_is_learned_from_that_is_older_than_the_bound(bound: int, learning: float) -> None:
    rng = np.random.default_rng(0)
    turns = responses(*np.minimum(400, 1 + rng.lognormal(3, 1, 400).astype(int)))
    found = outcome(turns, 12, mode="async", staleness=bound, learn_seconds=lambda tokens: learning, rows=8, samplers=2)
    assert max(found.staleness) <= bound
    assert max(found.staleness) > 0


def test_asynchrony_gains_where_few_responses_are_long() -> None:
    rng = np.random.default_rng(0)
    turns = responses(*np.minimum(2000, 1 + rng.lognormal(4, 1, 800).astype(int)))
    settings = {"samplers": 2, "rows": 16, "batch": 64, "learn_seconds": lambda tokens: 0.002 * tokens}
    sync, free = (outcome(turns, 9, mode=mode, **settings) for mode in ("sync", "async"))
    assert free.trajectories_per_second > 1.5 * sync.trajectories_per_second
    assert sync.sampling < free.sampling <= 1.01
    assert free.learning <= 1.0


@pytest.mark.parametrize("mean", [6000, 8192, 10000])
@pytest.mark.parametrize("sigma", [0.3, 0.7, 1.1])
def test_drawn_lengths_have_the_mean_that_was_asked_for(mean: int, sigma: float) -> None:
    from scaling.workload import LongTail

    drawn = LongTail(mean=mean, sigma=sigma, calls=3).draw(4000, 0)
    lengths = [sum(turn.tokens for turn in turns) for turns in drawn]
    assert np.mean(lengths) == pytest.approx(mean, rel=0.04)
    assert max(lengths) <= 16384
    assert np.mean([len(turns) - 1 for turns in drawn]) == pytest.approx(3, rel=0.1)


def test_what_is_expected_is_near_what_is_published() -> None:
    from scaling.roofline import comparison

    speeds = [row["ratio"] for row in comparison() if "tokens/s" in row["published"]]
    steps = [row["ratio"] for row in comparison() if "a step" in row["published"]]
    assert len(speeds) == 6 and all(0.9 <= ratio <= 1.1 for ratio in speeds)
    assert len(steps) == 2 and all(0.75 <= ratio <= 1.25 for ratio in steps)


def test_the_simulation_of_the_32b_preset_is_near_its_plan() -> None:
    from scaling.roofline import preset, system_of, workload_of
    from scaling.simulation import simulate

    from retool.cluster.plan import make_plan

    config = preset("retool-32b", "rl.prompts=64")
    expected = make_plan(config).step.seconds
    found = simulate(system_of(config), workload_of(config, sigma=0.3).draw(3000, 0), 9)
    assert found.step_seconds == pytest.approx(expected, rel=0.25)


def test_the_seconds_in_the_document_are_those_that_are_expected() -> None:
    from scaling.roofline import comparison_lines, placements

    text = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert "\n".join(placements()) in text
    assert "\n".join(comparison_lines()) in text
