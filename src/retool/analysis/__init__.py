"""Analysis: how a model uses the interpreter, how that changes over training, and whether training is well."""

from retool.analysis.alarms import Alarm, alarms
from retool.analysis.behaviour import behaviour, curves
from retool.analysis.breakdown import breakdown, changes
from retool.analysis.corrections import SelfCorrection, self_corrections
from retool.analysis.health import health, tool_health
from retool.analysis.judging import Exhibit, agreement, question, read_verdict
from retool.analysis.pairing import head_to_head, where
from retool.analysis.prose import prose
from retool.analysis.purpose import Purpose, purposes
from retool.analysis.records import Call, Correction, Observation, Response, Revision, code_lines, observe
from retool.analysis.revisions import ResultRevision, revisions
from retool.analysis.usefulness import best_number_of_calls, cost, usefulness

__all__ = [
    "Alarm",
    "Call",
    "Correction",
    "Exhibit",
    "Observation",
    "Purpose",
    "Response",
    "ResultRevision",
    "Revision",
    "SelfCorrection",
    "agreement",
    "alarms",
    "behaviour",
    "best_number_of_calls",
    "breakdown",
    "changes",
    "code_lines",
    "cost",
    "curves",
    "head_to_head",
    "health",
    "observe",
    "prose",
    "purposes",
    "question",
    "read_verdict",
    "revisions",
    "self_corrections",
    "tool_health",
    "usefulness",
    "where",
]
