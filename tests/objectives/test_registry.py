"""What a config chooses by name."""

from __future__ import annotations

import pytest
import torch

from retool.errors import UsageError
from retool.objectives.registry import known, lookup, register
from retool.types import Trajectory

BUILT_IN = {
    "advantage": {"grpo", "dr_grpo", "rloo", "reinforce_pp", "reinforce_pp_baseline"},
    "policy_loss": {"ppo_clip", "gspo", "cispo", "reinforce"},
    "aggregation": {"token_mean", "sequence_mean", "constant"},
    "kl": {"k1", "k2", "k3"},
    "correction": {"truncated", "masked"},
    "reward": {"outcome", "tool_bonus"},
    "filter": {"equal_rewards", "pass_rate", "resample_on_correct"},
    "mask": {"truncated", "void_turns"},
}


@pytest.mark.parametrize("kind", BUILT_IN)
def test_what_is_built_in_has_a_name(kind: str) -> None:
    assert BUILT_IN[kind] <= set(known(kind))


def test_a_function_is_found_with_its_settings_bound() -> None:
    loss = lookup("policy_loss", "ppo_clip", {"clip_high": 0.5})
    ratio, one, lengths = torch.tensor([9.0]).log(), torch.ones(1), torch.tensor([1])
    assert loss(ratio, torch.zeros(1), one, lengths)[0].tolist() == [-1.5]


@pytest.mark.parametrize(
    ("kind", "name", "settings", "message"),
    [
        ("policy_loss", "ppo_clp", {}, "unknown policy_loss 'ppo_clp'; expected ppo_clip"),
        ("kl", "forward", {}, "unknown kl 'forward'; expected k1 or k2 or k3"),
        ("policy_loss", "gspo", {"clip_hgih": 1}, "unknown setting of policy_loss 'gspo': 'clip_hgih'; .*clip_high"),
        ("advantage", "dr_grpo", {"eps": 1}, "unknown setting of advantage 'dr_grpo': 'eps'; expected none"),
        ("aggregation", "constant", {}, "the aggregation 'constant' needs the setting 'max_tokens'"),
        ("rewards", "outcome", {}, "unknown kind 'rewards'; expected reward"),
    ],
)
def test_what_is_unknown_is_answered_with_the_nearest(kind: str, name: str, settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        lookup(kind, name, settings)


@pytest.fixture
def own_names() -> object:
    before = set(known("reward"))
    yield
    for name in set(known("reward")) - before:
        del known("reward")[name]


def test_somebodys_own_function_is_chosen_like_the_others(own_names: None) -> None:
    @register("reward", "silent")
    def silent_reward(trajectory: Trajectory, *, worth: float = 0.5) -> dict[str, float]:
        return {"total": worth}

    assert lookup("reward", "silent", {"worth": 2.0})(None) == {"total": 2.0}
    assert register("reward", "silent")(silent_reward) is silent_reward
    with pytest.raises(UsageError, match=r"'outcome'; choose another name"):
        register("reward", "outcome")(silent_reward)
