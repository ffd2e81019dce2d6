"""The state of a training run at a glance, what collapses first when a model collapses; and how its calls end."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from retool.analysis.records import Call, Response, is_truncated, last_call_ok
from retool.types import Author, CallStatus, StopReason, Trajectory


def health(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Means over one step's rollouts. Shares are of responses (`ok_call_rate`, `malformed_call_rate`: of calls).

    `reward.<part>` is there for each part that a reward names. `code_pass_rate`, the share of responses with code whose
    last call is ok, is left out where no response has code. Tokens are of a response, by author: mean, `_p50`, `_max`.
    """
    count = max(1, len(trajectories))
    calls = [call for trajectory in trajectories for call in trajectory.calls]
    with_code = [trajectory for trajectory in trajectories if trajectory.executed]
    parts = dict.fromkeys(name for t in trajectories for name in t.reward if name != "total")

    def share(chosen: Sequence[object], of: int = count) -> float:
        return len(chosen) / max(1, of)

    row = {
        "reward": sum(t.reward.get("total", 0.0) for t in trajectories) / count,
        **{f"reward.{name}": sum(t.reward.get(name, 0.0) for t in trajectories) / count for name in parts},
        "accuracy": share([t for t in trajectories if t.correct]),
        "tool_call_rate": share(with_code),
        "calls_per_response": share(calls),
        "ok_call_rate": share([call for call in calls if call.status is CallStatus.OK], len(calls)),
        "malformed_call_rate": share([call for call in calls if call.status is CallStatus.MALFORMED], len(calls)),
        "boxed_rate": share([t for t in trajectories if t.answer is not None]),
        "truncated_rate": share([t for t in trajectories if t.truncated]),
        "lost_rate": share([t for t in trajectories if t.stop is StopReason.SANDBOX]),
    }
    if with_code:
        row["code_pass_rate"] = share([t for t in with_code if last_call_ok(t)], len(with_code))
    for author in Author:
        lengths = [t.tokens(author) for t in trajectories] or [0]
        row[f"{author}_tokens"] = sum(lengths) / len(lengths)
        row[f"{author}_tokens_p50"] = median(lengths)
        row[f"{author}_tokens_max"] = max(lengths)
    return row


def tool_health(responses: Sequence[Response], calls: Sequence[Call]) -> dict[str, float | int | None]:
    """How the calls of some responses end. Shares are 0-1, of calls unless the name says otherwise; None: no calls.

    `failed`: the code is to blame; `lost`: the sandbox is; `repeated`: the same program as an earlier call of it.
    """

    def share(count: int) -> float | None:
        return count / len(calls) if calls else None

    statuses = [call.status for call in calls]
    lost = sum(statuses.count(status) for status in (CallStatus.SANDBOX_ERROR, CallStatus.OVERLOAD))
    return {
        "responses": len(responses),
        "calls": len(calls),
        "calls_per_response": len(calls) / len(responses),
        "most_calls": max(response.calls for response in responses),
        "responses_with_a_call": sum(response.calls > 0 for response in responses) / len(responses),
        "truncated_responses": sum(map(is_truncated, responses)) / len(responses),
        "ok": share(statuses.count(CallStatus.OK)),
        "failed": share(sum(response.failed for response in responses)),
        "malformed": share(statuses.count(CallStatus.MALFORMED)),
        "timed_out": share(statuses.count(CallStatus.TIME_LIMIT)),
        "lost": share(lost),
        "repeated": share(sum(call.repeats for call in calls)),
        "lines_per_call": share(sum(call.lines for call in calls)),
    }
