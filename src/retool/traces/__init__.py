"""Text traces into code traces by rule: rewriting, the real outputs, verification. Pure functions on text.

draft = rewrite(problem, solution)          # or a Rejection that says why not
trace = complete(draft, executions)         # executions: the runs of draft.snippets
trace = verify(trace, is_correct)
"""

from retool.traces.draft import Draft, Execution, Reason, Rejection
from retool.traces.plain import rewrite_plain
from retool.traces.rewrite import rewrite, text_trace
from retool.traces.steps import rewrite_steps
from retool.traces.verification import complete, model_spans, verify

__all__ = [
    "Draft",
    "Execution",
    "Reason",
    "Rejection",
    "complete",
    "model_spans",
    "rewrite",
    "rewrite_plain",
    "rewrite_steps",
    "text_trace",
    "verify",
]
