"""What a synthesis took in, kept and gave up: for programs (`report.json`) and for readers (`README.md`)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from retool.traces.draft import Reason, Rejection
from retool.types import Kind, Problem, Trace

EXAMPLES_PER_REASON = 5


@dataclass(slots=True)
class SynthReport:
    """Counts of one synthesis. `sources` = `accepted` + the sum of `rejected`; `accepted` = `code` + `text`."""

    seed: int
    code_share: float
    sources: int = 0
    accepted: int = 0
    code: int = 0
    text: int = 0
    calls: int = 0
    rejected: Counter[Reason] = field(default_factory=Counter)
    examples: dict[Reason, list[dict[str, str]]] = field(default_factory=dict)
    sources_by_source: Counter[str] = field(default_factory=Counter)
    accepted_by_source: Counter[str] = field(default_factory=Counter)

    def add(self, problem: Problem, outcome: Trace | Rejection) -> None:
        """Count one row and what became of it; the first rejections of a kind are kept as examples."""
        self.sources += 1
        self.sources_by_source[problem.source] += 1
        if isinstance(outcome, Rejection):
            self.rejected[outcome.reason] += 1
            examples = self.examples.setdefault(outcome.reason, [])
            if len(examples) < EXAMPLES_PER_REASON:
                examples.append({"id": problem.id, "problem": problem.text, "detail": outcome.detail})
            return
        self.accepted += 1
        self.accepted_by_source[problem.source] += 1
        self.calls += sum(segment.kind is Kind.CODE for segment in outcome.segments)
        if outcome.has_code:
            self.code += 1
        else:
            self.text += 1

    def to_json(self) -> dict[str, Any]:
        reasons = [reason for reason, _ in self.rejected.most_common()]
        return {
            "sources": self.sources,
            "accepted": self.accepted,
            "code": self.code,
            "text": self.text,
            "calls": self.calls,
            "seed": self.seed,
            "code_share": self.code_share,
            "by_source": {
                source: {"sources": count, "accepted": self.accepted_by_source[source]}
                for source, count in self.sources_by_source.items()
            },
            "rejected": {reason: self.rejected[reason] for reason in reasons},
            "meanings": {reason: reason.meaning for reason in reasons},
            "examples": {reason: self.examples[reason] for reason in reasons},
        }


def data_card(report: SynthReport) -> str:
    """The `README.md` of a folder of traces."""
    rejected = [f"| {reason} | {reason.meaning} | {count} |" for reason, count in report.rejected.most_common()]
    sources = [
        f"| {source} | {count} | {report.accepted_by_source[source]} |"
        for source, count in report.sources_by_source.items()
    ]
    calls_per_trace = report.calls / report.code if report.code else 0.0
    return "\n".join(
        [
            "# Cold-start traces",
            "",
            "Worked solutions, rewritten by rules so that calculations are done by Python code. Every snippet was run",
            "in the sandbox; the results in the traces are what it printed. A trace is kept if no snippet failed, each",
            "result is the value that the text goes on with, the format is sound and the boxed answer is correct.",
            "",
            f"- `traces.jsonl`: {report.accepted} traces, {report.code} with code ({calls_per_trace:.2f} calls each)",
            f"  and {report.text} as text; the share {report.code_share:g} for code was drawn with seed {report.seed}.",
            f"- `text_traces.jsonl`: the same {report.accepted} problems, all as text, for a text-only baseline.",
            "- `report.json`: these counts, and examples of what was rejected.",
            "",
            "A row has the schema `retool.trace/1`: `problem` (`id`, `text`, `answer`, `source`) and `segments`, each",
            "with `author` (`model` or `interpreter`), `kind` (`text`, `code` or `result`), `text` and, for a result,",
            "`status`.",
            "",
            "## Sources",
            "",
            "| source | solutions | accepted |",
            "|---|---|---|",
            *sources,
            "",
            f"## Rejected: {report.sources - report.accepted} of {report.sources}",
            "",
            *(["| reason | meaning | solutions |", "|---|---|---|", *rejected] if rejected else ["None."]),
            "",
        ]
    )
