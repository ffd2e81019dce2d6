"""The times that a run on a cluster leaves, one learner and three samplers in mode `async`: simulated, not run."""

from __future__ import annotations

from math import inf
from random import Random

from retool.runs import RunFolder

STEPS, GROUPS, SAMPLERS, SLOTS, AHEAD = 20, 52, 3, 6, 2
EVALUATED, WATCHED = 2, 18
UPDATE, WEIGHTS, TAKE, SAVING = 6.4, 0.5, 0.25, 0.2
DIES, BACK = 96.0, 3.5
"""When sampler 2 is lost, and how many seconds later it is there again."""
SEED, EPOCH = 3, 1_800_000_000.0


class _Learner:
    """Takes the steps in turn, as it becomes known when their groups are done."""

    def __init__(self, run: RunFolder):
        self.run, self.step = run, 1
        self.began, self.published = {1: 0.0}, dict[int, float]()
        self.done: dict[tuple[int, str], list[float]] = {}

    def go_on(self) -> None:
        step, began = self.step, self.began[self.step]
        rollouts, evaluations = (self.done.get((step, did), []) for did in ("rollout", "evaluation"))
        if len(rollouts) < GROUPS:
            return
        rolled_out = max(began, *rollouts)
        published = rolled_out + UPDATE + WEIGHTS
        if step not in self.published:
            self.published[step] = published
            for sampler in range(SAMPLERS):
                facts = {"version": step, "lost": False}
                self.run.log_work(sampler, "weights", EPOCH + published, EPOCH + published + TAKE, facts)
        timings = {"began": EPOCH + began, "rollout_seconds": rolled_out - began}
        timings |= {"update_seconds": UPDATE, "weights_seconds": WEIGHTS}
        if step % EVALUATED == 0:
            if len(evaluations) < WATCHED:
                return
            timings["evaluation_seconds"] = max(evaluations) - published
        self.run.log(step, {}, timings)
        self.step += 1
        self.began[self.step] = published + timings.get("evaluation_seconds", 0.0) + SAVING
        self.go_on()


def write_times(run: RunFolder) -> None:
    """timings.jsonl and samplers.jsonl. Whichever sampler is free takes the next group that may begin: one of a step up
    to two steps ahead of the learner, or of an evaluation, by the weights that this is of."""
    rng, learner = Random(SEED), _Learner(run)
    free = [(0.0, sampler) for sampler in range(SAMPLERS) for _ in range(SLOTS)]
    waiting = [(step, "rollout", group) for step in range(1, STEPS + 1) for group in range(GROUPS)]
    waiting += [
        (step, "evaluation", group) for step in range(EVALUATED, STEPS + 1, EVALUATED) for group in range(WATCHED)
    ]
    waiting.sort(key=lambda each: each[0])

    def may_begin(step: int, did: str, _: int) -> float:
        if did == "evaluation":
            return learner.published.get(step, inf) + TAKE
        return learner.began.get(max(1, step - AHEAD), inf)

    while waiting:
        at, sampler = free.pop(free.index(min(free)))
        group = next((each for each in waiting if may_begin(*each) <= at), None)
        if group is None:
            free.append((min(may_begin(*each) for each in waiting), sampler))
            continue
        step, did, number = group
        until = at + (rng.uniform(0.6, 1.6) if did == "evaluation" else rng.lognormvariate(0.95, 0.75))
        is_lost = sampler == 2 and at < DIES + BACK and until > DIES
        if is_lost:
            at, until = min(at, DIES), DIES
        facts = {"step": step, "group": f"ReTool/{step}/{did} {number}", "lost": is_lost}
        if at < until:
            run.log_work(sampler, did, EPOCH + at, EPOCH + until, facts)
        free.append((DIES + BACK if is_lost else until, sampler))
        if not is_lost:
            waiting.remove(group)
            learner.done.setdefault((step, did), []).append(until)
            learner.go_on()
