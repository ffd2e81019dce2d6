"""The state of a training run at a glance: what collapses first when a model collapses."""

from __future__ import annotations

from collections.abc import Sequence

from retool.types import Author, CallStatus, StopReason, Trajectory


def health(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Means over one step's rollouts. Shares are of responses (`ok_call_rate`, `malformed_call_rate`: of calls)."""
    count = max(1, len(trajectories))
    calls = [call for trajectory in trajectories for call in trajectory.calls]

    def share(chosen: Sequence[object], of: int = count) -> float:
        return len(chosen) / max(1, of)

    return {
        "reward": sum(t.reward.get("total", 0.0) for t in trajectories) / count,
        "accuracy": share([t for t in trajectories if t.correct]),
        "tool_call_rate": share([t for t in trajectories if t.executed]),
        "calls_per_response": share(calls),
        "ok_call_rate": share([call for call in calls if call.status is CallStatus.OK], len(calls)),
        "malformed_call_rate": share([call for call in calls if call.status is CallStatus.MALFORMED], len(calls)),
        "boxed_rate": share([t for t in trajectories if t.answer is not None]),
        "truncated_rate": share([t for t in trajectories if t.truncated]),
        "lost_rate": share([t for t in trajectories if t.stop is StopReason.SANDBOX]),
        "model_tokens": sum(t.tokens(Author.MODEL) for t in trajectories) / count,
        "interpreter_tokens": sum(t.tokens(Author.INTERPRETER) for t in trajectories) / count,
    }
