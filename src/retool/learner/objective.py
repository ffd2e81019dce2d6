"""What a run optimizes: the functions that its config names, found in the register and put together.

An algorithm is a name for some of the choices. Whatever a config sets itself comes before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import torch

from retool.config.base import chosen
from retool.config.schema import RlConfig
from retool.errors import UsageError
from retool.objectives.advantages import adaptive_lambda, gae
from retool.objectives.ragged import spread
from retool.objectives.registry import lookup
from retool.objectives.rewards import Reward
from retool.objectives.selection import Selection
from retool.types import Author, StopReason, Trajectory

ALGORITHMS: dict[str, dict[str, Any]] = {
    "ppo": {"advantage": "gae", "loss": "ppo_clip", "aggregation": "token_mean"},
    "grpo": {"advantage": "grpo", "loss": "ppo_clip", "aggregation": "sequence_mean"},
    "dapo": {
        "advantage": "grpo",
        "loss": {"ppo_clip": {"clip_high": 0.28}},
        "aggregation": "token_mean",
        "filters": "equal_rewards",
    },
    "dr_grpo": {"advantage": "dr_grpo", "loss": "ppo_clip", "aggregation": "constant"},
    "rloo": {"advantage": "rloo", "loss": "ppo_clip", "aggregation": "constant"},
    "reinforce_pp": {"advantage": "reinforce_pp", "loss": "ppo_clip", "aggregation": "token_mean"},
    "reinforce_pp_baseline": {"advantage": "reinforce_pp_baseline", "loss": "ppo_clip", "aggregation": "token_mean"},
    "gspo": {"advantage": "grpo", "loss": "gspo", "aggregation": "sequence_mean"},
    "cispo": {"advantage": "grpo", "loss": "cispo", "aggregation": "token_mean"},
}


@dataclass(frozen=True, slots=True)
class Objective:
    """The functions of one run (see the modules of `retool.objectives` for what they take and give).

    `advantage` takes rewards [B], groups [B], the critic's values [N] or None, and lengths [B]; it gives advantages [N]
    and the critic's targets [N] or None. `correction` and `kl` are None where the config has none.
    """

    needs_critic: bool
    advantage: Callable[..., tuple[torch.Tensor, torch.Tensor | None]]
    loss: Callable[..., tuple[torch.Tensor, dict[str, torch.Tensor]]]
    aggregation: Callable[[torch.Tensor], torch.Tensor]
    correction: Callable[..., tuple[torch.Tensor, dict[str, torch.Tensor]]] | None
    kl: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None
    kl_coefficient: float
    filters: Sequence[Callable[..., Selection]]
    masks: Sequence[Callable[..., Selection]]
    rewards: Sequence[Reward]


def make_objective(config: RlConfig, max_tokens: int) -> Objective:
    """Raises UsageError for a name or a setting that there is not. `max_tokens` is the longest response."""
    for module in config.plugins:
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            raise UsageError(f"rl.plugins names {module!r}, but {error}; put it on PYTHONPATH") from error

    def functions(kind: str, field: str) -> list[Callable]:
        choices = getattr(config, field)
        if choices is None:
            choices = ALGORITHMS[config.algorithm].get(field)
        return [lookup(kind, name, settings, max_tokens=max_tokens) for name, settings in chosen(choices).items()]

    kl, coefficient = _kl(config)
    needs_critic, advantage = _advantage(config)
    return Objective(
        needs_critic=needs_critic,
        advantage=advantage,
        loss=functions("policy_loss", "loss")[0],
        aggregation=functions("aggregation", "aggregation")[0],
        correction=next(iter(functions("correction", "correction")), None),
        kl=kl,
        kl_coefficient=coefficient,
        filters=functions("filter", "filters"),
        masks=functions("mask", "masks"),
        rewards=functions("reward", "reward"),
    )


def _advantage(config: RlConfig) -> tuple[bool, Callable]:
    choice = config.advantage or ALGORITHMS[config.algorithm]["advantage"]
    ((name, settings),) = chosen(choice).items()
    if name == "gae":
        return True, partial(_with_critic, **_gae_settings(settings))
    return False, partial(_without_critic, lookup("advantage", name, settings))


def _gae_settings(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    known = {"gamma", "lam", "critic_lam", "length_adaptive"}
    if unknown := settings.keys() - known:
        raise UsageError(f"rl.advantage.gae has no setting {min(unknown)!r}; expected {', '.join(sorted(known))}")
    return settings


def _with_critic(
    rewards_B: torch.Tensor,
    groups_B: torch.Tensor,
    values_N: torch.Tensor,
    lengths_B: torch.Tensor,
    *,
    gamma: float = 1.0,
    lam: float = 1.0,
    critic_lam: float | None = None,
    length_adaptive: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`length_adaptive` is VAPO's α: λ follows the length of each response."""
    lam_B = lam if length_adaptive is None else adaptive_lambda(lengths_B, length_adaptive)
    return gae(rewards_B, values_N, lengths_B, gamma, lam_B, critic_lam)


def _without_critic(
    estimate: Callable, rewards_B: torch.Tensor, groups_B: torch.Tensor, values_N: None, lengths_B: torch.Tensor
) -> tuple[torch.Tensor, None]:
    return spread(estimate(rewards_B, groups_B), lengths_B), None


def _kl(config: RlConfig) -> tuple[Callable | None, float]:
    if config.kl is None:
        return None, 0.0
    ((name, settings),) = chosen(config.kl).items()
    coefficient = settings.get("coefficient")
    if settings.keys() - {"coefficient"} or not isinstance(coefficient, int | float) or coefficient < 0:
        raise UsageError(f"rl.kl must be {{{name}: {{coefficient: 0.01}}}}, a number of 0 or more; found {config.kl}")
    return lookup("kl", name), float(coefficient)


def learnable(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Those that something can be learned from: the model wrote something, and the sandbox did not lose it."""
    return [t for t in trajectories if t.stop is not StopReason.SANDBOX and t.tokens(Author.MODEL)]


def select(
    functions: Sequence[Callable[..., Selection]], trajectories: Sequence[Trajectory], rng: np.random.Generator
) -> tuple[list[int], dict[str, int]]:
    """Positions of those that all filters, or masks, keep, one after the other, and how many each reason dropped."""
    kept, reasons = list(range(len(trajectories))), {}
    for function in functions:
        selection = function([trajectories[i] for i in kept], rng)
        for reason in selection.dropped.values():
            reasons[reason] = reasons.get(reason, 0) + 1
        kept = [kept[i] for i in selection.kept]
    return kept, reasons
