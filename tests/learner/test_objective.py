"""What a config asks to be optimized, and that it is."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from retool.config.sampling import SamplingConfig
from retool.config.schema import CriticConfig, RlConfig
from retool.errors import UsageError
from retool.learner.learner import Learner
from retool.learner.objective import ALGORITHMS, make_objective
from retool.types import Author, Problem, Span, StopReason, Trajectory

PROMPT = [9, 1]
RIGHT = 4


def answer(model: PreTrainedModel, token: int, sample: int, group: str = "g", **settings: object) -> Trajectory:
    """A trajectory of one token after the prompt, right if it is `RIGHT`, with its true log-probability."""
    correct = token == RIGHT
    return Trajectory(
        **{
            "id": f"{group}/{sample}",
            "step": 1,
            "arm": "ReTool",
            "seed": 0,
            "sample": sample,
            "group": group,
            "model": "m",
            "protocol": "tags",
            "problem": Problem("p", "?", "4", "test"),
            "prompt_ids": PROMPT,
            "spans": [Span(Author.MODEL, [token], "", [logprob(model, token)])],
            "correct": correct,
            "reward": {"total": 1.0 if correct else -1.0},
            **settings,
        }
    )


@torch.no_grad()
def logprob(model: PreTrainedModel, token: int) -> float:
    return float(model(torch.tensor([PROMPT])).logits[0, -1].log_softmax(-1)[token])


def make_learner(model: PreTrainedModel, **settings: object) -> Learner:
    config = RlConfig(**{"steps": 4, "learning_rate": 3e-3, "mini_batches": 1, **settings})
    return Learner(model, make_objective(config, max_tokens=4), config, SamplingConfig(), seed=0)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_makes_right_answers_more_probable(model: PreTrainedModel, algorithm: str) -> None:
    learner, before = make_learner(model, algorithm=algorithm), logprob(model, RIGHT)
    for step in (1, 2, 3, 4):
        metrics, _ = learner.update([answer(model, token, n) for n, token in enumerate([4, 5, 6, 7])], step)
        assert all(np.isfinite(value) for value in metrics.values()), metrics
    assert logprob(model, RIGHT) > before + 0.1


@pytest.mark.parametrize("algorithm", sorted(set(ALGORITHMS) - {"ppo"}))
def test_without_a_critic_nothing_is_computed_before_the_update(model: PreTrainedModel, algorithm: str) -> None:
    learner = make_learner(model, algorithm=algorithm)
    calls: list[bool] = []
    model.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    model.base_model.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    trajectories = [answer(model, token, n) for n, token in enumerate([4, 5])]
    calls.clear()
    metrics, record = learner.update(trajectories, 1)
    assert calls and all(calls)
    assert metrics["logprob_gap_max"] < 1e-5 and record.values.size == 0 and record.logprobs.size == 2


def test_a_group_without_a_difference_teaches_nothing_to_those_that_compare(model: PreTrainedModel) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    learner = make_learner(model, algorithm="grpo")
    metrics, _ = learner.update([answer(model, 5, n) for n in range(3)], 1)
    assert metrics["grad_norm"] == 0.0
    dapo = make_learner(model, algorithm="dapo")
    metrics, record = dapo.update([answer(model, 5, n) for n in range(3)], 1)
    assert metrics == {"trained": 0, "left_out.equal_rewards": 3} and record.ids == []
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_a_mask_drops_is_compared_with_and_not_learned_from(model: PreTrainedModel) -> None:
    """Cut off, the right answer still lowers the advantage of the wrong one from 0 to below it."""
    cut = answer(model, RIGHT, 0, stop=StopReason.TOKENS)
    for masks, ids in ((None, ["g/0", "g/1"]), ("truncated", ["g/1"])):
        learner = make_learner(model, algorithm="dr_grpo", masks=masks)
        _, record = learner.update([cut, answer(model, 5, 1)], 1)
        assert record.ids == ids
        assert record.advantages[-1] == pytest.approx(-1.0)


def test_the_pull_of_the_reference_brings_the_policy_back(model: PreTrainedModel) -> None:
    learner = make_learner(model, algorithm="grpo", kl={"k2": {"coefficient": 1.0}})
    before = logprob(model, 5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    moved = abs(logprob(model, 5) - before)
    found = []
    for step in (1, 2, 3, 4):
        metrics, _ = learner.update([answer(model, 5, n) for n in range(2)], step)  # no difference: the pull alone
        found.append(metrics["kl_reference"])
    assert found[0] == pytest.approx(0.5 * moved**2, rel=1e-3)
    assert abs(logprob(model, 5) - before) < 0.7 * moved


def test_tokens_of_another_policy_weigh_what_the_correction_says(model: PreTrainedModel) -> None:
    """The sampler thought its token e² times as probable as the learner does."""
    trajectories = [answer(model, 5, 0), answer(model, RIGHT, 1)]
    trajectories[0].spans[0].logprobs[0] += 2.0
    settings = {"algorithm": "grpo", "old_logprobs": "learner"}
    norms = []
    for correction in (None, "truncated", {"masked": {"level": "token"}}):
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        metrics, _ = make_learner(model, correction=correction, **settings).update(trajectories, 1)
        model.load_state_dict(weights)
        norms.append(metrics["policy_loss"])
        assert metrics["ratio"] == pytest.approx(1.0)
    plain, truncated, masked = norms
    low = float(np.exp(-2.0))
    advantage = float(np.sqrt(0.5))  # of two rewards that differ
    assert plain == pytest.approx(0.0, abs=1e-5)
    assert truncated == pytest.approx(0.5 * (low * advantage - advantage), abs=1e-5)
    assert masked == pytest.approx(0.5 * -advantage, abs=1e-5)
    with pytest.raises(UsageError, match="old_logprobs=learner"):
        make_learner(model, algorithm="grpo", correction="truncated")


def test_a_critic_with_a_trunk_of_its_own_leaves_the_policy_alone_and_goes_on_from_its_state(
    model: PreTrainedModel, tmp_path: Path
) -> None:
    critic = CriticConfig(trunk="own", learning_rate=1e-2, trunk_learning_rate=1e-2, warmup_steps=1)
    learner = make_learner(model, critic=critic)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    own = {name: value.clone() for name, value in learner.critic.trunk.state_dict().items()}
    trajectories = [answer(model, token, n) for n, token in enumerate([4, 5, 6])]
    for _ in range(2):  # the head's last layer starts at 0, so the trunk moves from the second update on
        learner.update(trajectories, 1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert any(not torch.equal(value, own[name]) for name, value in learner.critic.trunk.state_dict().items())
    again = make_learner(model, critic=critic)
    learner.trained.save_rest(tmp_path)
    again.trained.load_rest(tmp_path)
    found = [each.update(trajectories, 2)[0]["value_mean"] for each in (learner, again)]
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_staleness_counts_the_updates_since_a_token_was_written(model: PreTrainedModel) -> None:
    trajectories = [answer(model, token, n) for n, token in enumerate([4, 5])]
    trajectories[1].spans[0].version = 2
    metrics, _ = make_learner(model, algorithm="grpo").update(trajectories, 4)
    assert (metrics["staleness_mean"], metrics["staleness_max"]) == (2.0, 3.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "ppo_clop"}, "unknown policy_loss 'ppo_clop'; expected ppo_clip"),
        ({"loss": {"ppo_clip": {"clip_hi": 1.0}}}, "'clip_hi'; expected clip_high"),
        ({"advantage": {"gae": {"lambda": 1.0}}}, "no setting 'lambda'"),
        ({"kl": "k2"}, "coefficient"),
        ({"plugins": ("no_such_module",)}, "no_such_module.*PYTHONPATH"),
        ({"filters": "resample_on_correct"}, "needs the setting 'size'"),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_objective(RlConfig(**settings), max_tokens=4)


def test_a_loss_of_ones_own_takes_ten_lines(
    model: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_losses.py").write_text(
        "from retool.objectives.registry import register\n\n\n"
        '@register("policy_loss", "likelihood")\n'
        "def likelihood(logprobs_N, old_logprobs_N, advantages_N, lengths_B, *, weight=1.0):\n"
        "    return -weight * logprobs_N, {}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    learner = make_learner(model, plugins=("my_losses",), loss={"likelihood": {"weight": 2.0}}, advantage="rloo")
    metrics, _ = learner.update([answer(model, 5, 0)], 1)
    assert metrics["policy_loss"] == pytest.approx(-2.0 * answer(model, 5, 0).spans[0].logprobs[0], rel=0.5)
    assert "my_losses" in sys.modules
