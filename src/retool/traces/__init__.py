"""Text traces into code traces: rewriting, the real outputs, verification. Pure functions on text.

draft = rewrite(problem, solution)          # by rules, or a Rejection that says why not; `teacher` has the other way
trace = complete(draft, executions)         # executions: the runs of draft.snippets
trace = verify(trace, is_correct)
"""

from retool.traces.draft import Draft, Execution, Rejection
from retool.traces.plain import rewrite_plain
from retool.traces.reasons import Reason
from retool.traces.rewrite import rewrite, text_trace
from retool.traces.steps import rewrite_steps
from retool.traces.tagged import has_tags, read_tagged
from retool.traces.verification import IsCorrect, complete, model_spans, verify

__all__ = [
    "Draft",
    "Execution",
    "IsCorrect",
    "Reason",
    "Rejection",
    "complete",
    "has_tags",
    "model_spans",
    "read_tagged",
    "rewrite",
    "rewrite_plain",
    "rewrite_steps",
    "text_trace",
    "verify",
]
