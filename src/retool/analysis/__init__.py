"""Analysis: how a model uses the interpreter, and how that changes over training."""

from retool.analysis.behaviour import behaviour, code_lines, curves
from retool.analysis.health import health

__all__ = ["behaviour", "code_lines", "curves", "health"]
