"""One page about any runs and evaluations."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from retool.analysis import Observation, Response, behaviour, curves
from retool.errors import UsageError
from retool.evaluation import compare, summarize
from retool.reporting import (
    PAGE_BYTES,
    Alarm,
    Archive,
    Comparison,
    CurveRow,
    Entry,
    Origin,
    Purposes,
    Report,
    StepTimes,
    System,
    write_report,
)
from retool.runs import RunFolder, read_rows
from retool.stages.analyze.sources import is_run, labels, stored_results
from retool.stages.progress import Progress
from retool.stages.report.entries import Batch, evaluation_batch, held_out_batches, rollout_batches
from retool.stages.report.step_times import typical_step
from retool.types import Trajectory

_TRAINING_METRICS = ("reward", "entropy", "explained_variance", "kl_sampler_learner", "truncated_rate", "ok_call_rate")


def report_runs(paths: Sequence[Path], out: Path, title: str | None = None, page_bytes: int = PAGE_BYTES) -> None:
    """Write a report of run folders (curves, alarms), evaluation folders and files of trajectories (tables), with the
    trajectories of all of them as far as the page stays below `page_bytes`."""
    named = labels(paths)
    runs = {label: RunFolder(path) for path, label in named.items() if is_run(path)}
    evaluations = {label: path for path, label in named.items() if not is_run(path)}
    found = gather(runs, evaluations, page_bytes)
    systems = [System.from_json(label, results) for label, results in found.results.items()]
    facts = {label: str(path) for path, label in named.items()}
    write_report(out, found.report(title=title or ", ".join(named.values()), facts=facts, systems=systems))


@dataclass(slots=True)
class Findings:
    """What the trajectories of runs and evaluations say, and the archive that holds them."""

    archive: Archive
    curves: list[CurveRow] = field(default_factory=list)
    purposes: list[Purposes] = field(default_factory=list)
    watched: list[str] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)
    step_times: list[StepTimes] = field(default_factory=list)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each evaluation found, as `System.from_json` takes it."""
    comparisons: list[Comparison] = field(default_factory=list)

    def report(self, **parts: Any) -> Report:
        """A report of all this, with further `parts`."""
        return Report(
            curves=self.curves,
            purposes=self.purposes,
            watched=self.watched,
            alarms=self.alarms,
            step_times=self.step_times,
            comparisons=self.comparisons,
            archive=self.archive,
            **parts,
        )


@dataclass(slots=True)
class _Observed:
    """What is kept of one batch when its trajectories have gone by."""

    responses: list[Response] = field(default_factory=list)
    verdicts: list[Trajectory] = field(default_factory=list)
    """What evaluation reads of a trajectory."""
    purposes: Counter[str] = field(default_factory=Counter)

    def add(self, trajectory: Trajectory, observation: Observation) -> None:
        self.verdicts.append(replace(trajectory, prompt_ids=None, spans=[], calls=[], timing={}))
        self.responses.append(observation.response)
        self.purposes.update(call.purpose.value for call in observation.calls)

    @property
    def problems(self) -> set[str]:
        """Their texts, up to white space, by which `compare` tells them."""
        return {" ".join(trajectory.problem.text.split()) for trajectory in self.verdicts}

    @property
    def self_corrected(self) -> float | None:
        failed = [response for response in self.responses if response.failed]
        return sum(response.corrections > 0 for response in failed) / len(failed) if failed else None


def gather(runs: Mapping[str, RunFolder], evaluations: Mapping[str, Path], page_bytes: int = PAGE_BYTES) -> Findings:
    """Read all trajectories of `runs` and `evaluations` (folders or JSONL files), by label, one at a time.

    The order is that of precedence in the archive: in turn one of each evaluation, of the held-out problems and of the
    rollouts of each run; of a run its last step, its first, then from the newest to the oldest.
    """
    archive = Archive(page_bytes)
    queues = [[evaluation_batch(label, path)] for label, path in evaluations.items()]
    for label, run in runs.items():
        queues += [held_out_batches(label, run), rollout_batches(label, run)]
    observed = _read(queues, archive)

    found = Findings(archive)
    for label, run in runs.items():
        by_step = {step: seen for (name, _, step), seen in observed.items() if name == label and step is not None}
        if not by_step:
            raise UsageError(f"{run.path} holds no trajectories yet; only `retool rl` and `retool eval` make some")
        found.curves += run_curves(run, label, {step: seen.responses for step, seen in by_step.items()})
        for step in sorted({min(by_step), max(by_step)}):
            found.purposes.append(Purposes(label, f"step {step}", by_step[step].purposes))
        if run.metrics.exists():
            found.watched.append(label)
            found.alarms += run_alarms(run, label)
        if times := typical_step(run, label):
            found.step_times.append(times)
    evaluated = {label: observed[label, Origin.EVALUATION, None] for label in evaluations}
    for label, seen in evaluated.items():
        results = stored_results(evaluations[label]) or summarize(seen.verdicts) | behaviour(seen.responses)
        found.results[label] = results | {"self_corrected": seen.self_corrected}
        if label not in runs:
            found.purposes.append(Purposes(label, "", seen.purposes))
    found.purposes = [purposes for purposes in found.purposes if purposes.calls]
    found.comparisons = _comparisons(evaluated)
    return found


def _comparisons(evaluated: Mapping[str, _Observed]) -> list[Comparison]:
    """Each two evaluations, on the problems that both have."""
    found = []
    for (first, ours), (second, theirs) in combinations(evaluated.items(), 2):
        if not ours.problems & theirs.problems:
            continue
        row = compare(ours.verdicts, theirs.verdicts)
        found.append(Comparison(first, second, row["problems"], row["difference"], tuple(row["ci95"]), row["p_value"]))
    return found


def _read(queues: Sequence[Sequence[Batch]], archive: Archive) -> dict[tuple[str, Origin, int | None], _Observed]:
    """Put all into `archive`; returns what was observed of the batches that curves and tables are made from."""
    observed: dict[tuple[str, Origin, int | None], _Observed] = defaultdict(_Observed)
    batches = [batch for queue in queues for batch in queue]
    has_held_out = {batch.run for batch in batches if batch.origin is Origin.HELD_OUT}

    def entries(queue: Sequence[Batch]) -> Iterator[tuple[Entry, _Observed | None, Observation]]:
        for batch in queue:
            aside = batch.origin is Origin.ROLLOUT and batch.run in has_held_out
            if archive.full and aside:
                archive.omit(batch.run, len(batch))
                progress.step_done()
                continue
            kept = None if aside else observed[batch.run, batch.origin, batch.step]
            for entry, observation in batch.read():
                yield entry, kept, observation
            progress.step_done(f"{len(archive):,} trajectories")

    with Progress("report", len(batches)) as progress:
        for entry, kept, observation in _in_turn(map(entries, queues)):
            archive.add(entry)
            if kept is not None:
                kept.add(entry.trajectory, observation)
    return observed


def _in_turn(sources: Iterable[Iterator[Any]]) -> Iterator[Any]:
    """One item of each source, then the next one of each, until all are at their end."""
    waiting = deque(sources)
    while waiting:
        source = waiting.popleft()
        for item in source:
            yield item
            waiting.append(source)
            break


def run_curves(run: RunFolder, arm: str, by_step: Mapping[int, Sequence[Response]]) -> list[CurveRow]:
    """The behaviour curves and accuracy of a run, and how its training went."""
    rows: list[CurveRow] = list(curves(by_step, arm))
    for row in read_rows(run.metrics):
        for metric in _TRAINING_METRICS:
            known = metric != "ok_call_rate" or row.get("calls_per_response")  # where nothing was called, it says 0
            rows.append(
                {"arm": arm, "step": row["step"], "metric": metric, "value": row.get(metric) if known else None}
            )
    return rows


def run_alarms(run: RunFolder, label: str) -> list[Alarm]:
    """What alarms.jsonl says, each alarm from its begin to its end."""
    found: list[Alarm] = []
    for row in read_rows(run.alarms):
        if row["event"] == "begins":
            found.append(Alarm(label, row["name"], row["step"], None, row["message"], row["advice"]))
        else:
            open_one = next(i for i, alarm in enumerate(found) if alarm.name == row["name"] and alarm.ends is None)
            found[open_one] = replace(found[open_one], ends=row["step"])
    return found
