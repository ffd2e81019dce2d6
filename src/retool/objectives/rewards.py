"""From a graded trajectory to its reward. Kind "reward": `reward(trajectory, **settings)` → {"total": …, parts …}.

`total` is what the objective sees, the sum of the parts. Several rewards are added up by `add_rewards`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from retool.objectives.registry import register
from retool.types import Trajectory

Reward = Callable[[Trajectory], dict[str, float]]


@register("reward", "outcome")
def outcome_reward(trajectory: Trajectory, *, right: float = 1.0, wrong: float = -1.0) -> dict[str, float]:
    """+1 if the final answer is right, −1 otherwise (arXiv 2504.11536, §2.3.1): no bonus for format or for code that
    runs, so that there is nothing else to gain."""
    return {"total": right if trajectory.correct else wrong}


@register("reward", "tool_bonus")
def tool_bonus_reward(trajectory: Trajectory, *, per_turn: float = 0.1, ceiling: float = -0.6) -> dict[str, float]:
    """±1, but a wrong answer costs less the more turns ran code: min(−0.6, −1 + 0.1 · turns).

    verl's ReTool recipe, not the paper's reward: there (num_turns − 2) / 2 counts the turns that called, several calls
    of one turn once; so −1 without a call and −0.6 from four turns on. Here only calls that reached the interpreter
    count, so that malformed ones gain nothing. It keeps small models from giving the tool up.
    """
    if trajectory.correct:
        return {"total": 1.0, "outcome": 1.0, "tool_bonus": 0.0}
    turns = len({call.span for call in trajectory.executed})
    bonus = min(ceiling + 1.0, per_turn * turns)
    return {"total": -1.0 + bonus, "outcome": -1.0, "tool_bonus": bonus}


@register("reward", "overlong")
def overlong(
    trajectory: Trajectory, *, max_tokens: int, cache_tokens: int | None = None, factor: float = 1.0
) -> dict[str, float]:
    """DAPO's soft penalty for length (arXiv 2503.14476, eq. 13), to be added to another reward: 0 up to L_max − L_cache
    tokens, then linearly down to −1 at L_max, and −1 beyond; times `factor`. L_cache is L_max / 5 by default, about the
    paper's.

    Length is that of the response, interpreter tokens included, as `rollout.max_tokens` counts it.
    """
    cache = cache_tokens or max(1, max_tokens // 5)
    excess = trajectory.tokens() - (max_tokens - cache)
    penalty = -factor * min(max(excess / cache, 0.0), 1.0)
    return {"total": penalty, "overlong": penalty}


def add_rewards(trajectory: Trajectory, rewards: Iterable[Reward]) -> dict[str, float]:
    """The parts of all rewards together, `total` their sum."""
    parts: dict[str, float] = {}
    for reward in rewards:
        for name, value in reward(trajectory).items():
            parts[name] = parts.get(name, 0.0) + value
    return parts
