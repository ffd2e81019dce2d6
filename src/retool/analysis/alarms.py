"""What looks wrong about a training run, from its rows of metrics alone: the ways in which tool RL collapses.

Rates are judged by means over a few steps, beside what the run itself had once: a model that never called a tool has
nothing to lose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_WINDOW = 3  # steps that a mean is over
_LEAST_RATE = 0.2  # of a rate that can be said to collapse
_COLLAPSED = 0.25  # of the best window
_ENTROPY_LEFT = 0.1  # of the first window
_ENTROPY_FLOOR = 0.01  # nats a token; below it, samples of a group are copies of each other
_TRUNCATED = 0.5
_KL = 0.05  # nats a token
_GAP = 10.0  # nats; a token's probability differs by a factor of 22,000
_NO_GRADIENT_STEPS = 3


@dataclass(frozen=True, slots=True)
class Alarm:
    """`message` is a sentence with the numbers, `advice` says which settings may help."""

    name: str
    message: str
    advice: str


def alarms(rows: Sequence[Mapping[str, Any]]) -> list[Alarm]:
    """The alarms of the last step, from the rows of metrics.jsonl up to it, oldest first; None is no value."""
    if not rows:
        return []
    found = [
        _collapse(
            rows,
            "tool_call_rate",
            "tool_calls",
            "responses with a call",
            "add the reward `tool_bonus` (rl.reward=[tool_bonus]), mask void turns (rl.masks=[void_turns]), or lower "
            "rl.learning_rate; ok_call_rate says whether calls fail, for which sandbox limits may be the reason",
        ),
        _collapse(
            rows,
            "boxed_rate",
            "boxed",
            "responses with a boxed answer",
            "look at a few responses (`retool report`); lower rl.learning_rate, or raise rollout.max_tokens if "
            "truncated_rate is high",
        ),
        _entropy(rows),
        _truncation(rows),
        _mismatch(rows[-1]),
        _dropped(rows[-1]),
        _no_gradient(rows),
    ]
    return [alarm for alarm in found if alarm]


def _collapse(rows: Sequence[Mapping[str, Any]], metric: str, name: str, what: str, advice: str) -> Alarm | None:
    means = list(_means(rows, metric))
    if not means or max(means) < _LEAST_RATE or means[-1] >= _COLLAPSED * max(means):
        return None
    return Alarm(name, f"{what}: {means[-1]:.0%} over the last {_WINDOW} steps, once {max(means):.0%}", advice)


def _entropy(rows: Sequence[Mapping[str, Any]]) -> Alarm | None:
    means = list(_means(rows, "entropy"))
    if not means or means[-1] >= means[0]:
        return None
    if means[-1] >= max(_ENTROPY_LEFT * means[0], _ENTROPY_FLOOR):
        return None
    return Alarm(
        "entropy",
        f"entropy: {means[-1]:.4f} nats a token over the last {_WINDOW} steps, {means[0]:.4f} at the start",
        "raise the upper clip (rl.loss={ppo_clip: {clip_high: 0.28}}), set rl.entropy_coefficient, or lower "
        "rl.learning_rate; samples of a group that are alike teach nothing",
    )


def _truncation(rows: Sequence[Mapping[str, Any]]) -> Alarm | None:
    means = list(_means(rows, "truncated_rate"))
    if not means or means[-1] <= _TRUNCATED:
        return None
    return Alarm(
        "truncation",
        f"responses cut off by a limit: {means[-1]:.0%} over the last {_WINDOW} steps, {means[0]:.0%} at the start",
        "raise rollout.max_tokens (or max_turn_tokens, max_calls, max_seconds, whichever cuts), add the reward "
        "`overlong` (rl.reward=[outcome, overlong]), or mask them (rl.masks=[truncated])",
    )


def _mismatch(row: Mapping[str, Any]) -> Alarm | None:
    kl, gap = row.get("kl_sampler_learner") or 0.0, row.get("logprob_gap_max") or 0.0
    if not (kl > _KL or gap > _GAP):
        return None
    reason = f"a mean KL of {kl:.3f} nats a token is above {_KL}" if kl > _KL else ""
    reason += f"{' and ' * bool(reason)}one token is {gap:.1f} nats apart, more than {_GAP:.0f}" if gap > _GAP else ""
    return Alarm(
        "mismatch",
        f"sampler and learner do not agree on what was sampled: {reason}",
        "set rl.old_logprobs=learner with rl.correction=truncated, take model.dtype=float32 or "
        "sampler.backend=engine to see whether the sampler is the reason, fewer rl.mini_batches if updates are",
    )


def _dropped(row: Mapping[str, Any]) -> Alarm | None:
    share = row.get("dropped_updates", 0.0)
    if not share:
        return None
    return Alarm(
        "nan",
        f"{share:.0%} of the updates had a gradient that is not finite and were dropped",
        "lower rl.learning_rate, take model.dtype=float32, and look at a loss or reward of your own (rl.plugins)",
    )


def _no_gradient(rows: Sequence[Mapping[str, Any]]) -> Alarm | None:
    last = rows[-_NO_GRADIENT_STEPS:]
    if len(last) < _NO_GRADIENT_STEPS or any(row.get("trained") and row.get("grad_norm") != 0.0 for row in last):
        return None
    accuracy = sum(row.get("accuracy", 0.0) for row in last) / len(last)
    return Alarm(
        "no_gradient",
        f"nothing to learn from in {_NO_GRADIENT_STEPS} steps in a row: the rewards of each group are equal, with "
        f"{accuracy:.0%} of the responses right",
        "raise rl.samples, draw further problems (rl.filters=[equal_rewards] with rl.refill=2), or take "
        f"{'harder' if accuracy > 0.5 else 'easier'} problems (data.train)",
    )


def _means(rows: Sequence[Mapping[str, Any]], metric: str) -> Iterator[float]:
    """The mean over each `_WINDOW` steps in a row that have a value."""
    values = [row[metric] for row in rows if row.get(metric) is not None]
    for end in range(_WINDOW, len(values) + 1):
        yield sum(values[end - _WINDOW : end]) / _WINDOW
