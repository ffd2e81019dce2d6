"""The file in which people accept or reject solutions: written once, edited by hand, read back.

    ## 3. gsm8k/a1b2
    - [ ] accept
    - [x] reject

What is to be judged is indented, so that no line of it can pass for a heading or a mark.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from retool.errors import UsageError
from retool.types import Problem

_HEAD = """\
# Solutions to review

For each solution put an x between the brackets of `accept` or of `reject`; words after `reject` are kept as the
reason. Then run the same command again.
"""

_ENTRY = """
## {number}. {id}
- [ ] accept
- [ ] reject

Problem:

{problem}

Reference answer:

{answer}

Solution:

{solution}
"""

_HEADING = re.compile(r"^## \d+\. (?P<id>.*)$", re.MULTILINE)
_MARK = re.compile(r"^- \[(?P<mark>[ xX]?)\] (?P<verdict>accept|reject)(?P<why>.*)$", re.MULTILINE)


def write_review(rows: Sequence[tuple[Problem, str]]) -> str:
    """The file for problems with their solutions, nothing marked yet."""
    entries = [
        _ENTRY.format(
            number=number,
            id=_one_line(problem.id),
            problem=_indented(problem.text),
            answer=_indented(problem.answer),
            solution=_indented(solution),
        )
        for number, (problem, solution) in enumerate(rows, 1)
    ]
    return _HEAD + "".join(entries)


def read_review(text: str, ids: Sequence[str], where: str) -> dict[str, str | None]:
    """What people said of the problems `ids`: None for accepted, the reason (or "") for rejected; those that are not
    marked are missing. Raises UsageError if the file is about others, or marks one both ways."""
    headings = [*_HEADING.finditer(text)]
    found = [heading["id"] for heading in headings]
    if found != [_one_line(identity) for identity in ids]:
        raise UsageError(
            f"{where} does not list the {len(ids)} solutions that are to be reviewed now, in order; move it away, and "
            "it is written anew"
        )
    verdicts: dict[str, str | None] = {}
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    for identity, heading, end in zip(ids, headings, ends, strict=True):
        marked = [mark for mark in _MARK.finditer(text, heading.end(), end) if mark["mark"].strip()]
        if len(marked) > 1:
            raise UsageError(f"{where} marks {identity!r} more than once; leave one x")
        if marked:
            verdicts[identity] = None if marked[0]["verdict"] == "accept" else marked[0]["why"].strip(" :.-")
    return verdicts


def _indented(text: str) -> str:
    return textwrap.indent(text.strip() or "(none)", "    ", lambda line: True)


def _one_line(text: str) -> str:
    return " ".join(text.split())
