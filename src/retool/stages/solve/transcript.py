"""A response as a file for people (Markdown) or for programs (its trajectory as JSON)."""

from __future__ import annotations

import json
import re
from pathlib import Path

from retool.analysis import prose
from retool.errors import UsageError
from retool.files import publish
from retool.reporting import printable
from retool.types import Author, Trajectory

_JSON = (".json", ".jsonl")
_MARKDOWN = ".md"
_FENCE = re.compile(r"^ {0,3}(`{3,})", re.MULTILINE)


def check_ending(path: Path) -> None:
    """Raise UsageError unless the ending says what to write."""
    if path.suffix.lower() not in (*_JSON, _MARKDOWN):
        raise UsageError(
            f"a transcript is written as Markdown ({_MARKDOWN}) or as a trajectory ({', '.join(_JSON)}), by the ending "
            f"of its name; found {path.name!r}"
        )


def write_transcript(path: Path, trajectory: Trajectory) -> None:
    """Write `trajectory` as the ending of `path` says: `.md`, or `.json` and `.jsonl`, one row either way."""
    check_ending(path)
    as_json = path.suffix.lower() in _JSON
    publish(path, json.dumps(trajectory.to_json()) + "\n" if as_json else markdown(trajectory))


def markdown(trajectory: Trajectory) -> str:
    """Question, reasoning, code, results with their verdicts, and the answer."""
    first, *others = prose(trajectory)
    parts = ["# Question", trajectory.problem.text, "# Response", first]
    for call, after in zip(trajectory.calls, others, strict=True):
        parts += [_fenced(call.code, "python"), f"*{call.status}:*", _fenced(call.output, "text"), after]
    parts += ["# Answer", "none" if trajectory.answer is None else trajectory.answer]
    parts += [f"{trajectory.model}, protocol {trajectory.protocol}, seed {trajectory.seed}; {size(trajectory)}"]
    return printable("\n\n".join(part for part in parts if part.strip())) + "\n"


def size(trajectory: Trajectory) -> str:
    """What a response took, in words."""
    calls = len(trajectory.calls)
    facts = [f"{calls} call{'s' * (calls != 1)}", f"{trajectory.timing.get('seconds', 0.0):.1f} s"]
    if all(span.ids is not None for span in trajectory.spans):
        facts.insert(0, f"{trajectory.tokens(Author.MODEL)} tokens")
    return ", ".join(facts)


def _fenced(text: str, language: str) -> str:
    """A code block that nothing in `text` ends."""
    longest = max((len(fence) for fence in _FENCE.findall(text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
