"""Analysis: how a model uses the interpreter, and how that changes over training."""

from retool.analysis.behaviour import behaviour, code_lines, curves

__all__ = ["behaviour", "code_lines", "curves"]
