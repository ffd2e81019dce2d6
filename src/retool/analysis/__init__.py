"""Analysis: how a model uses the interpreter, how that changes over training, and whether training is well."""

from retool.analysis.alarms import Alarm, alarms
from retool.analysis.behaviour import behaviour, code_lines, curves
from retool.analysis.health import health

__all__ = ["Alarm", "alarms", "behaviour", "code_lines", "curves", "health"]
