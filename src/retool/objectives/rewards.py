"""From a graded trajectory to its reward."""

from __future__ import annotations

from retool.types import Trajectory


def outcome_reward(trajectory: Trajectory) -> dict[str, float]:
    """+1 if the final answer is right, −1 otherwise (arXiv 2504.11536, §2.3.1): no bonus for format or for code that
    runs, so that there is nothing else to gain."""
    return {"total": 1.0 if trajectory.correct else -1.0}
