"""Problems from files and Hugging Face data sets: mapped, de-duplicated, with a report of what was dropped."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from numbers import Number
from pathlib import Path
from typing import Any

from retool.data.jsonl import parse_json, read_jsonl
from retool.data.labels import agree
from retool.data.mapping import CHOICES, MAPPINGS, ColumnMapping, find_mapping, look_up
from retool.errors import UsageError, first_line
from retool.types import Problem

# name → (Hugging Face id, configuration, split, mapping)
NAMED_SETS: dict[str, tuple[str, str | None, str, str]] = {
    "gsm8k": ("openai/gsm8k", "main", "test", "gsm8k"),
    "gsm8k-train": ("openai/gsm8k", "main", "train", "gsm8k"),
    "dapo-math-17k": ("BytedTsinghua-SIA/DAPO-Math-17k", None, "train", "dapo-math-17k"),
    "aime24": ("HuggingFaceH4/aime_2024", None, "train", "aime24"),
    "aime25": ("math-ai/aime25", None, "test", "aime25"),
    "aime26": ("math-ai/aime26", None, "test", "aime25"),
    "amc23": ("math-ai/amc23", None, "test", "aime25"),
    "math-500": ("HuggingFaceH4/MATH-500", None, "test", "math-500"),
}


EXAMPLES = 5


@dataclass(slots=True)
class LoadReport:
    """What happened on the way in. `conflicts` counts problems whose copies disagree about the answer: dropped.
    `incomplete` counts rows without a problem or an answer that were left out, if the caller allowed it."""

    read: int = 0
    duplicates: int = 0
    conflicts: int = 0
    incomplete: int = 0
    conflict_examples: list[dict[str, Any]] = field(default_factory=list)
    incomplete_examples: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Loaded:
    """`rows` are (problem, worked solution or None), each problem once, in the order of the source."""

    rows: list[tuple[Problem, str | None]]
    report: LoadReport

    @property
    def problems(self) -> list[Problem]:
        return [problem for problem, _ in self.rows]


def load_problems(
    source: str, mapping: str | None = None, limit: int | None = None, *, skip_incomplete: bool = False
) -> Loaded:
    """Load the problems of a file (.jsonl, .json, .parquet), a named set, or a Hugging Face data set id.

    Problems that differ in white space or case only are one problem. `limit` keeps the first N of what is left.
    Ids are unique: where the ids of a set are not, they are made from the texts instead.
    Raises UsageError for missing or empty sources, rows without an answer (with `skip_incomplete`: unless other rows
    have one), columns that the mapping does not find or that hold no text, and for an id column of the user's own
    choice that gives different problems the same id.
    """
    name, rows, columns = _open(source, mapping)
    report = LoadReport()
    kept: dict[str, tuple[Problem, str | None] | None] = {}  # None: its copies disagree
    for where, row in rows:
        report.read += 1
        try:
            problem, solution = _read_row(row, columns, name, where)
        except _Incomplete as error:
            if not skip_incomplete:
                raise
            report.incomplete += 1
            if len(report.incomplete_examples) < EXAMPLES:
                report.incomplete_examples.append(str(error))
            continue
        key = " ".join(problem.text.casefold().split())
        if key not in kept:
            kept[key] = problem, solution
            continue
        first = kept[key]
        if first is None or agree(first[0].answer, problem.answer):
            report.duplicates += 1
            continue
        kept[key] = None
        report.conflicts += 1
        if len(report.conflict_examples) < EXAMPLES:
            answers = [first[0].answer, problem.answer]
            report.conflict_examples.append({"problem": problem.text, "answers": answers, "where": where})
    found = [entry for entry in kept.values() if entry is not None]
    if not found:
        raise UsageError(next(iter(report.incomplete_examples), f"{source} holds no problems"))
    chosen = bool(columns.id) and mapping is not None and mapping not in MAPPINGS
    return Loaded(_with_unique_ids(found, source, chosen)[:limit], report)


def check_disjoint(training: Sequence[Problem], heldout: Sequence[Problem]) -> None:
    """Raise UsageError if a held-out problem is trained on, up to white space and case."""
    seen = {" ".join(problem.text.casefold().split()) for problem in training}
    shared = [problem for problem in heldout if " ".join(problem.text.casefold().split()) in seen]
    if shared:
        raise UsageError(
            f"{len(shared)} held-out problems are also trained on, such as {shared[0].text[:80]!r}; "
            "remove them from one side"
        )


def _open(source: str, mapping: str | None) -> tuple[str, Iterator[tuple[str, dict[str, Any]]], ColumnMapping]:
    """The set's name, its rows with the place of each, and the mapping of its columns."""
    path = Path(source)
    if path.is_file():
        return path.stem, _file_rows(path), find_mapping(mapping)
    if path.suffix in (".jsonl", ".json", ".parquet"):
        raise UsageError(f"there is no file {source}")
    if source in NAMED_SETS:
        dataset, configuration, part, own_mapping = NAMED_SETS[source]
        return source, _hub_rows(dataset, configuration, part), find_mapping(mapping or own_mapping)
    if source.count("/") != 1:
        raise UsageError(
            f"there is no data {source!r}: name a .jsonl, .json or .parquet file, a Hugging Face data set "
            f"(owner/name), or one of {', '.join(NAMED_SETS)}"
        )
    return source.split("/")[1], _hub_rows(source, None, "train"), find_mapping(mapping)


def _file_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
    elif path.suffix == ".json":
        rows = parse_json(path.read_bytes(), str(path))
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UsageError(f"{path} must be a list of objects")
        yield from ((f"{path}, entry {number}", row) for number, row in enumerate(rows, 1))
    else:
        yield from ((f"{path}:{number}", row) for number, row in read_jsonl(path))


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise UsageError(f"reading {path} needs pyarrow: pip install 'retool[data]'") from error
    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", row
    except ArrowInvalid as error:
        raise UsageError(f"{path} is not a Parquet file: {error}") from error


def _hub_rows(dataset: str, configuration: str | None, part: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        import datasets
    except ImportError as error:
        raise UsageError(f"loading {dataset!r} needs the datasets library: pip install 'retool[data]'") from error
    try:
        rows = datasets.load_dataset(dataset, configuration, split=part)
    except (OSError, ValueError) as error:  # datasets' own errors are subclasses of these
        reason = first_line(error)
        raise UsageError(
            f"the data set {dataset!r} could not be loaded ({reason}); without a network, download it elsewhere and "
            "give the file"
        ) from error
    yield from ((f"{dataset}, row {number}", dict(row)) for number, row in enumerate(rows, 1))


class _Incomplete(UsageError):
    """A row has no problem, or no answer."""


def _read_row(row: dict[str, Any], columns: ColumnMapping, name: str, where: str) -> tuple[Problem, str | None]:
    written = _text(row, columns.answer, "answer", where)
    question = columns.clean_problem(_text(row, columns.problem, "problem", where)).strip()
    answer = columns.clean_answer(written).strip()
    for what, value, paths in (("problem", question, columns.problem), ("answer", answer, columns.answer)):
        if not value:
            raise _Incomplete(
                f"{where} has no {what} (looked for {_either(paths)}; its columns are {', '.join(map(repr, row))}); "
                f"give another --mapping: {CHOICES}"
            )
    problem = Problem(_text(row, columns.id, "id", where) or _id_of(question), question, answer, name)
    solution = columns.clean_solution(_text(row, columns.solution, "solution", where))
    is_the_answer = solution == written and answer == written.replace(",", "").strip()  # one column for both
    if not solution or is_the_answer:
        return problem, None
    return problem, solution


def _text(row: dict[str, Any], paths: tuple[str, ...], what: str, where: str) -> str:
    """The text or the number at the first of `paths` that the row has; "" if it has none of them."""
    value = look_up(row, paths)
    if value is None:
        return ""
    if not isinstance(value, str | Number):
        raise UsageError(
            f"{where} has a {type(value).__name__} as its {what} (looked for {_either(paths)}), expected a text or a "
            f"number; give a --mapping that names the place inside it, such as {what}=COLUMN[0] or {what}=COLUMN.NAME"
        )
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{where} has half a surrogate pair, {text[error.start]!r}, in its {what}, which is no text that a "
            "tokenizer takes; write the whole character, or leave the row out"
        ) from error
    return text


def _either(paths: tuple[str, ...]) -> str:
    return " or ".join(map(repr, paths))


def _id_of(question: str) -> str:
    return hashlib.blake2b(question.encode(), digest_size=6).hexdigest()


def _with_unique_ids(
    rows: list[tuple[Problem, str | None]], source: str, chosen: bool
) -> list[tuple[Problem, str | None]]:
    """Samples are counted by their problem's id. Raises UsageError if problems share one of a `chosen` column."""
    by_id: dict[str, list[Problem]] = defaultdict(list)
    for problem, _ in rows:
        by_id[problem.id].append(problem)
    shared = {identity: problems for identity, problems in by_id.items() if len(problems) > 1}
    if shared and chosen:
        identity, (first, second, *_) = next(iter(shared.items()))
        raise UsageError(
            f"{source} has different problems with the same id, such as {identity!r} ({first.text[:80]!r} and "
            f"{second.text[:80]!r}); name another id column, or none: ids are then made from the texts"
        )
    return [
        (replace(problem, id=_id_of(problem.text)) if problem.id in shared else problem, solution)
        for problem, solution in rows
    ]
