"""Transforming a distribution, and drawing from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retool.config.sampling import SamplingConfig
from retool.sampling.choose import draw, log_total, transform_logits
from retool.sampling.randomness import uniforms

logits = st.lists(st.integers(-64, 64), min_size=2, max_size=12, unique=True).map(lambda row: [n / 8 for n in row])


def kept(values: list[float], **config: float) -> set[int]:
    transformed = transform_logits(torch.tensor([values]), SamplingConfig(**config))[0]
    return set(torch.isfinite(transformed).nonzero().flatten().tolist())


@given(logits, st.floats(0.05, 0.99))
@settings(deadline=None)
def test_top_p_keeps_the_smallest_set_that_reaches_p(values: list[float], top_p: float) -> None:
    probabilities = torch.tensor(values).softmax(-1)
    order = probabilities.argsort(descending=True).tolist()
    chosen, mass = set(), 0.0
    for index in order:
        if mass >= top_p - 1e-6:
            break
        chosen.add(index)
        mass += float(probabilities[index])
    sums = probabilities[order].cumsum(-1)
    on_the_edge = bool(((sums - top_p).abs() < 1e-5).any())
    assert on_the_edge or kept(values, top_p=top_p) == chosen


@given(logits, st.integers(1, 12))
@settings(deadline=None)
def test_top_k_keeps_the_k_most_probable(values: list[float], k: int) -> None:
    assert kept(values, top_k=k) == set(np.argsort(values)[::-1][:k].tolist())


@given(logits, st.floats(0.01, 0.9))
@settings(deadline=None)
def test_min_p_keeps_what_is_probable_enough_beside_the_best(values: list[float], min_p: float) -> None:
    ratios = np.exp(np.array(values) - max(values))
    clear = {i for i, ratio in enumerate(ratios) if ratio > min_p * 1.001}
    possible = {i for i, ratio in enumerate(ratios) if ratio > min_p * 0.999}
    assert clear <= kept(values, min_p=min_p) <= possible


@given(logits, st.floats(0.3, 2.0), st.integers(1, 12), st.floats(0.05, 0.99), st.floats(0.0, 0.5))
@settings(deadline=None)
def test_temperature_top_k_top_p_and_min_p_apply_one_after_the_other(
    values: list[float], temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    scaled = np.array(values) / temperature
    left = np.argsort(-scaled)[:top_k]
    masses = np.exp(scaled[left] - scaled.max())
    before = np.concatenate([[0.0], np.cumsum(masses)[:-1]]) / masses.sum()
    left, ratios, close = left[before < top_p], masses[before < top_p], np.abs(before - top_p).min() < 1e-5
    expected = set(left[ratios >= min_p].tolist())
    on_the_edge = close or (min_p > 0 and bool((np.abs(ratios - min_p) < 1e-4 * min_p).any()))
    found = kept(values, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    assert on_the_edge or found == expected
    assert int(np.argmax(values)) in found


def test_tokens_tied_with_the_last_kept_one_are_kept_too() -> None:
    assert kept([1.0, 2.0, 1.0, 0.0], top_k=2) == {0, 1, 2}
    assert kept([0.0, 0.0, 0.0], top_p=0.5) == {0, 1, 2}


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_temperature_divides_the_logits(temperature: float) -> None:
    row = torch.randn(3, 7)
    torch.testing.assert_close(transform_logits(row, SamplingConfig(temperature=temperature)), row / temperature)


@given(logits, st.integers(0, 11), st.floats(0.3, 2.0), st.integers(1, 12), st.floats(0.05, 0.99))
@settings(deadline=None)
def test_a_token_that_was_sampled_is_kept_beside_the_others(
    values: list[float], index: int, temperature: float, top_k: int, top_p: float
) -> None:
    sampled, row = index % len(values), torch.tensor([values])
    config = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p)
    found = transform_logits(row, config, torch.tensor([sampled]))
    left = sorted(kept(values, temperature=temperature, top_k=top_k, top_p=top_p) | {sampled})
    expected = torch.full((1, len(values)), -torch.inf)
    expected[0, left] = row[0, left] / temperature
    torch.testing.assert_close(found, expected)


def test_greedy_choice_does_not_hide_logits_that_are_not_finite() -> None:
    for broken in (torch.nan, torch.inf):
        row = torch.tensor([[0.0, broken, 1.0]])
        for config in (
            SamplingConfig(),
            SamplingConfig(temperature=0.0),
            SamplingConfig(top_k=1),
            SamplingConfig(top_p=0.5),
        ):
            assert draw(transform_logits(row, config), torch.tensor([0.5]).double())[1].isnan()


def test_temperature_zero_is_greedy_with_certainty() -> None:
    row = torch.tensor([[0.0, 3.0, 1.0]])
    ids, logprobs = draw(transform_logits(row, SamplingConfig(temperature=0.0)), torch.tensor([0.999]).double())
    assert (ids.tolist(), logprobs.tolist()) == ([1], [0.0])


def test_draws_follow_the_distribution() -> None:
    row = torch.tensor([2.0, 0.0, -1.0, -torch.inf, 1.0])
    count = 20_000
    numbers = (torch.arange(count, dtype=torch.float64) + 0.5) / count  # evenly spread: shares are exact
    ids, logprobs = draw(row.expand(count, -1).clone(), numbers)
    shares = torch.bincount(ids, minlength=5) / count
    torch.testing.assert_close(shares, row.softmax(-1), atol=2e-4, rtol=0)
    torch.testing.assert_close(logprobs, row.log_softmax(-1)[ids])


def test_random_numbers_depend_on_key_and_position_alone_and_are_uniform() -> None:
    keys = np.repeat(np.arange(200, dtype=np.uint64), 100)
    positions = np.tile(np.arange(100, dtype=np.uint64), 200)
    numbers = uniforms(keys, positions)
    assert numbers.min() >= 0.0 and numbers.max() < 1.0
    assert uniforms(keys[777:778], positions[777:778])[0] == numbers[777]
    counts = np.histogram(numbers, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 50  # χ² with 19 degrees of freedom: p < 0.0002 beyond


@given(st.lists(st.one_of(st.floats(-30, 30), st.just(-np.inf)), min_size=1, max_size=50), st.floats(0, 1))
def test_what_was_left_out_is_never_drawn(values: list[float], uniform: float) -> None:
    values[len(values) // 2] = 0.0  # at least one token is left
    row = torch.tensor([values])
    ids, logprobs = draw(row.clone(), torch.tensor([min(uniform, 1 - 2.0**-53)], dtype=torch.float64))
    assert logprobs.isfinite().all() and row[0, ids].isfinite().all()


@given(
    st.integers(4096, 5000),
    st.lists(st.integers(0, 4095), min_size=1, max_size=6, unique=True),
    st.sampled_from([0.0, 0.1, 0.5, 0.999, 1.0 - 2.0**-53]),
    st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=40)
def test_in_a_large_vocabulary_the_draw_is_the_inversion_of_the_whole_cumulative_sum(
    vocabulary: int, places: list[int], uniform: float, seed: int
) -> None:
    row = torch.full((1, vocabulary), -torch.inf)
    row[0, places] = torch.randn(len(places), generator=torch.Generator().manual_seed(seed))
    ids, logprobs = draw(row.clone(), torch.tensor([uniform], dtype=torch.float64))
    probabilities = row[0].double().softmax(-1)
    cumulative = probabilities.cumsum(-1)
    token = int(ids[0])
    assert token in places
    assert cumulative[token] - probabilities[token] - 1e-6 <= uniform <= cumulative[token] + 1e-6
    assert float(logprobs[0]) == pytest.approx(float(probabilities[token].log()), abs=1e-6)


@pytest.mark.parametrize("threads", [2], indirect=True)
@pytest.mark.parametrize("vocabulary", [97, 1024, 50_257])
def test_the_total_of_a_row_is_exact_and_the_same_among_others_and_alone(vocabulary: int, threads: None) -> None:
    logits_NV = 3 * torch.randn(5, vocabulary, generator=torch.Generator().manual_seed(0))
    logits_NV[2, 7] = -torch.inf
    total_N1 = log_total(logits_NV)
    assert torch.equal(torch.cat([log_total(alone_1V) for alone_1V in logits_NV.split(1)]), total_N1)
    exact_N1 = logits_NV.double().logsumexp(-1, keepdim=True)
    torch.testing.assert_close(total_N1.double(), exact_N1, atol=2e-6, rtol=0)
