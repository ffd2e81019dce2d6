"""What a synthesis took in, kept and gave up: for programs (`report.json`) and for readers (`README.md`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from retool.traces.counts import calls, corrects_itself
from retool.traces.draft import Rejection
from retool.traces.reasons import Reason
from retool.types import Kind, Problem, Trace

EXAMPLES_PER_REASON = 5


@dataclass(slots=True)
class SynthReport:
    """Counts of one synthesis. `sources` = `problems` + the sum of `rejected`: each row has become traces, or has one
    reason. `accepted` = `code` + `text` counts traces, of which a harvest may keep several of a problem."""

    seed: int
    rewriter: str
    code_share: float
    sources: int = 0
    problems: int = 0
    accepted: int = 0
    code: int = 0
    text: int = 0
    calls: int = 0
    failed_calls: int = 0
    self_corrections: int = 0
    text_traces: int = 0
    by_calls: Counter[int] = field(default_factory=Counter)
    rejected: Counter[Reason] = field(default_factory=Counter)
    examples: dict[Reason, list[dict[str, str]]] = field(default_factory=dict)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    sources_by_source: Counter[str] = field(default_factory=Counter)
    accepted_by_source: Counter[str] = field(default_factory=Counter)

    def add_loading(self, duplicates: int, conflicts: int, incomplete: int, examples: Sequence[str]) -> None:
        """Count rows that never came in: copies, pairs that disagree about the answer, and rows without an answer."""
        counts = {
            Reason.DUPLICATE: duplicates,
            Reason.CONFLICTING_ANSWERS: 2 * conflicts,
            Reason.INCOMPLETE: incomplete,
        }
        self.rejected += Counter({reason: count for reason, count in counts.items() if count})
        self.sources += sum(counts.values())
        if examples:
            self.examples[Reason.INCOMPLETE] = [{"detail": example} for example in examples]

    def add_sources(self, problems: Sequence[Problem]) -> None:
        self.sources += len(problems)
        self.sources_by_source.update(problem.source for problem in problems)

    def add_stage(self, name: str, kept: int, dropped: Iterable[tuple[Problem, Rejection]]) -> None:
        """Count what a stage dropped; the first ones of a reason are kept as examples."""
        reasons: Counter[Reason] = Counter()
        for problem, rejection in dropped:
            reasons[rejection.reason] += 1
            examples = self.examples.setdefault(rejection.reason, [])
            if len(examples) < EXAMPLES_PER_REASON:
                examples.append({"id": problem.id, "problem": problem.text, "detail": rejection.detail})
        self.rejected += reasons
        self.stages[name] = {"taken": kept + reasons.total(), "kept": kept, "dropped": dict(reasons.most_common())}

    def add_traces(self, traces: Sequence[Trace], twins: Sequence[Trace]) -> None:
        """Count the traces that were accepted, and those of the same problems without any code."""
        self.accepted, self.text_traces = len(traces), len(twins)
        self.problems = len({trace.problem.id for trace in traces})
        for trace in traces:
            self.accepted_by_source[trace.problem.source] += 1
            results = [segment for segment in trace.segments if segment.kind is Kind.RESULT]
            self.calls += len(results)
            self.failed_calls += sum(result.status != "ok" for result in results)
            self.self_corrections += corrects_itself(trace)
            self.by_calls[calls(trace)] += 1
        self.code = sum(trace.has_code for trace in traces)
        self.text = self.accepted - self.code

    def commonest_rejection(self) -> str:
        """What most rows were rejected for, with an example, in words."""
        if not self.rejected:
            return "there were none"
        reason, count = self.rejected.most_common(1)[0]
        example = next(iter(self.examples.get(reason, [])), {})
        such_as = f", such as {example.get('id', 'a row')}: {example['detail']}" if example else ""
        return f"{count} were rejected because {reason.meaning}{such_as}"

    def to_json(self) -> dict[str, Any]:
        reasons = [reason for reason, _ in self.rejected.most_common()]
        return {
            "sources": self.sources,
            "problems": self.problems,
            "accepted": self.accepted,
            "code": self.code,
            "text": self.text,
            "text_traces": self.text_traces,
            "calls": self.calls,
            "failed_calls": self.failed_calls,
            "self_corrections": self.self_corrections,
            "by_calls": {str(number): self.by_calls[number] for number in sorted(self.by_calls)},
            "seed": self.seed,
            "rewrite": self.rewriter,
            "code_share": self.code_share,
            "by_source": {
                source: {"sources": count, "accepted": self.accepted_by_source[source]}
                for source, count in self.sources_by_source.items()
            },
            "rejected": {reason: self.rejected[reason] for reason in reasons},
            "stages": self.stages,
            "meanings": {reason: reason.meaning for reason in reasons},
            "examples": {reason: self.examples.get(reason, []) for reason in reasons},
        }


_MADE_BY = {
    "rules": "Worked solutions, rewritten by rules so that calculations are done by Python code.",
    "teacher": "Worked solutions, rewritten by a teacher model so that calculations are done by Python code.",
    "harvest": "Solutions that a model found by itself, calling a Python interpreter; the verified successes.",
}


def data_card(report: SynthReport) -> str:
    """The `README.md` of a folder of traces."""
    rejected = [f"| {reason} | {reason.meaning} | {count} |" for reason, count in report.rejected.most_common()]
    sources = [
        f"| {source} | {count} | {report.accepted_by_source[source]} |"
        for source, count in report.sources_by_source.items()
    ]
    stages = [f"| {name} | {stage['taken']} | {stage['kept']} |" for name, stage in report.stages.items()]
    calls_per_trace = report.calls / report.code if report.code else 0.0
    return "\n".join(
        [
            "# Cold-start traces",
            "",
            _MADE_BY[report.rewriter],
            "Every snippet was run in the sandbox; the results in the traces are what it printed. A trace is kept if",
            "the text that goes on after a result agrees with it, no snippet failed without a later one succeeding,",
            "the format is sound and the boxed answer is correct.",
            "",
            f"- `traces.jsonl`: {report.accepted} traces, {report.code} with code ({calls_per_trace:.2f} calls each)",
            f"  and {report.text} as text; the share {report.code_share:g} for code was drawn with seed {report.seed}.",
            f"- `text_traces.jsonl`: {report.text_traces} traces of the same {report.problems} problems, all as text,",
            "  for a text-only baseline.",
            "- `report.json`: these counts, and examples of what was rejected.",
            "- `stages/`: the rows that each stage kept, and those that it dropped, with the reasons.",
            "",
            "A row has the schema `retool.trace/1`: `problem` (`id`, `text`, `answer`, `source`) and `segments`, each",
            "with `author` (`model` or `interpreter`), `kind` (`text`, `code` or `result`), `text` and, for a result,",
            "`status`.",
            "",
            f"Of the {report.calls} calls {report.failed_calls} fail; {report.self_corrections} traces correct a",
            "failed call with the next one.",
            "",
            "| calls | traces |",
            "|---|---|",
            *(f"| {number} | {report.by_calls[number]} |" for number in sorted(report.by_calls)),
            "",
            "## Sources",
            "",
            "| source | solutions | accepted |",
            "|---|---|---|",
            *sources,
            "",
            "## Stages",
            "",
            "| stage | rows | kept |",
            "|---|---|---|",
            *stages,
            "",
            f"## Rejected: {report.rejected.total()} of {report.sources}",
            "",
            *(["| reason | meaning | solutions |", "|---|---|---|", *rejected] if rejected else ["None."]),
            "",
        ]
    )
