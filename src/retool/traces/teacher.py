"""What a teacher model is asked, and how its replies are read (ReTool §2.2: keep the reasoning, let code calculate).

The contract: the reply holds the whole rewritten solution between <rewritten> and </rewritten>; each snippet stands
between <code> and </code>, the output that the teacher expects right after it between <interpreter> and </interpreter>,
and the solution ends in \\boxed{…}. Outputs are only expectations: the snippets are run, and where the teacher was
wrong about something that its text relies on, it is asked once more, with what they really print.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from retool.traces.draft import Draft, Execution, Rejection
from retool.traces.reasons import Reason
from retool.traces.tagged import has_tags, read_tagged
from retool.types import Problem

INSTRUCTION = """\
You edit worked solutions of mathematical problems. The solution that you get was written by somebody who had to do \
everything by hand. Rewrite it as if the same person had a Python interpreter at hand all along.

What to change: wherever the author computes, enumerates, solves or checks something that a short program does faster \
or more reliably, let a program do it, and go on from what it prints. Leave out the manual steps that it replaces.

What to keep: the author's voice, the order of the ideas, and every idea that was tried, including the ones that \
failed and how the author noticed. Do not use the answer before it has been found, and do not mention this editing.

How a call is written:
<code>
a complete program: all imports, all values, no state from earlier programs, and a print of what is needed
</code>
<interpreter>
exactly what that program prints
</interpreter>

Between the tags of <code> there is Python and nothing else, no Markdown. Nothing outside of them looks like a tag or \
a code block. A program may fail if the author then sees why and corrects it; the last one must succeed. The numbers \
in your text after a call are those that the call prints.

The rewritten solution ends with the final answer in \\boxed{}. Reply with <rewritten>, the rewritten solution, and \
</rewritten>."""

_REQUEST = """\
Problem:
{problem}

Solution to rewrite:
{solution}"""

_COMPLAINT = """\
That cannot be used: {complaint}.
{outputs}
Reply once more in full, in the same form, with the fault corrected."""

_OUTPUTS = """
The programs of your reply were run. In their order, they really print:
{outputs}
Whatever your text says after a call must follow from these outputs. You may change programs, too.
"""

_REWRITTEN = re.compile(r"<rewritten>(.*)</rewritten>", re.DOTALL)
_THOUGHTS = re.compile(r"\A.*</think>", re.DOTALL)
_SHOWN = 2000  # characters of an output that the teacher gets to see


def ask(problem: Problem, solution: str) -> list[dict[str, Any]]:
    """The messages that ask for a rewritten solution. The reference answer is not among them."""
    return [
        {"role": "system", "content": INSTRUCTION},
        {"role": "user", "content": _REQUEST.format(problem=problem.text, solution=solution)},
    ]


def ask_again(
    problem: Problem, solution: str, reply: str, fault: Rejection, executions: Sequence[Execution] = ()
) -> list[dict[str, Any]]:
    """The messages that tell a teacher what is wrong with its `reply`, and what its snippets really print."""
    shown = "\n".join(
        f"program {number} ({run.status}):\n{_shortened(run.output) or '(nothing)'}"
        for number, run in enumerate(executions, 1)
    )
    complaint = _COMPLAINT.format(
        complaint=f"{fault.reason.meaning} ({_shortened(fault.detail)})",
        outputs=_OUTPUTS.format(outputs=shown) if executions else "",
    )
    return [
        *ask(problem, solution),
        {"role": "assistant", "content": reply},
        {"role": "user", "content": complaint},
    ]


def read_reply(problem: Problem, reply: str) -> Draft | Rejection:
    """The draft in a reply; a Rejection says which part of the contract was not kept."""
    rewritten = _REWRITTEN.search(_THOUGHTS.sub("", reply))
    if rewritten is None:
        return Rejection(Reason.FORMAT, "the reply has nothing between <rewritten> and </rewritten>")
    if not has_tags(rewritten[1]):
        return Rejection(Reason.NO_CALL, "the rewritten solution has no <code>")
    draft = read_tagged(problem, rewritten[1])
    if isinstance(draft, Draft) and None in draft.claims:
        return Rejection(Reason.FORMAT, "a <code> without an <interpreter> right after it")
    return draft


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]} … {text[-_SHOWN // 2 :]}"
