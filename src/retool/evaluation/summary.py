"""From graded trajectories to the numbers of an evaluation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from retool.errors import UsageError
from retool.evaluation.statistics import bootstrap_interval, majority_at_k, pass_at_k
from retool.types import Problem, StopReason, Trajectory


def summarize(
    trajectories: Sequence[Trajectory],
    *,
    seed: int = 0,
    resamples: int = 10_000,
    equal: Callable[[str, str], bool] = str.__eq__,
) -> dict[str, Any]:
    """Accuracy with its interval, pass@k and maj@k, truncation and accuracy per family. All fractions are 0-1.

    Trajectories belong to the same problem if `problem.id` is the same. Accuracy is avg@k: the mean over problems of
    the mean over a problem's samples. Every trajectory counts: one without an answer, cut off, or lost to the sandbox
    is wrong, and for maj@k it has no vote. `equal` says whether two wrong answers are the same vote (right ones always
    are). `samples`, and with it the largest k, is the number of samples of the problem that has the fewest.

    Returns a JSON object: `accuracy`, `ci95` [low, high], `problems`, `samples`, `truncated` (share of trajectories),
    `families` {`problem.source`: accuracy}, `pass_at` and `maj_at` {"k": value} for powers of two and for `samples`.
    """
    if not trajectories:
        raise UsageError("Found no trajectories to evaluate, expected at least one: check that the file is not empty.")
    by_problem = _by_problem(trajectories)
    scores = [_mean([t.correct for t in group]) for group in by_problem]
    samples = min(len(group) for group in by_problem)
    families: dict[str, list[float]] = defaultdict(list)
    for group, score in zip(by_problem, scores, strict=True):
        families[group[0].problem.source].append(score)
    tallies = [_tally(group, equal) for group in by_problem]
    return {
        "accuracy": _mean(scores),
        "ci95": list(bootstrap_interval(scores, seed=seed, resamples=resamples)),
        "problems": len(by_problem),
        "samples": samples,
        "truncated": _mean([t.truncated for t in trajectories]),
        "families": {name: _mean(family) for name, family in sorted(families.items())},
        "pass_at": {
            str(k): _mean([pass_at_k(right + sum(wrong) + abstained, right, k) for right, wrong, abstained in tallies])
            for k in _ks(samples)
        },
        "maj_at": {
            str(k): _mean([majority_at_k(right, wrong, k, abstained) for right, wrong, abstained in tallies])
            for k in _ks(samples)
        },
    }


def _by_problem(trajectories: Sequence[Trajectory]) -> list[list[Trajectory]]:
    """The trajectories of each problem; in order of id, so that the interval does not depend on the order of rows."""
    groups: dict[str, list[Trajectory]] = defaultdict(list)
    problems: dict[str, Problem] = {}
    for trajectory in trajectories:
        problem = trajectory.problem
        if problems.setdefault(problem.id, problem) != problem:
            raise UsageError(
                f"Found two different problems with the id {problem.id!r}, expected ids to be unique: "
                "evaluate the data sets one by one, or give their problems different ids."
            )
        groups[problem.id].append(trajectory)
    return [groups[id_] for id_ in sorted(groups)]


def _tally(group: Sequence[Trajectory], equal: Callable[[str, str], bool]) -> tuple[int, list[int], int]:
    """Votes for the right answer, for each wrong one, and the number of samples without a vote."""
    wrong: list[tuple[str, int]] = []
    right = abstained = 0
    for trajectory in group:
        if trajectory.correct:
            right += 1
        elif trajectory.stop is not StopReason.EOS or not (trajectory.answer or "").strip():
            abstained += 1
        else:
            for i, (answer, votes) in enumerate(wrong):
                if equal(answer, trajectory.answer):
                    wrong[i] = answer, votes + 1
                    break
            else:
                wrong.append((trajectory.answer, 1))
    return right, [votes for _, votes in wrong], abstained


def _ks(samples: int) -> list[int]:
    return sorted({2**i for i in range(samples.bit_length())} | {samples})


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
