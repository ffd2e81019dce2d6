"""Evaluation: what a set of graded trajectories says about accuracy, and how sure that is."""

from retool.evaluation.statistics import bootstrap_interval, majority_at_k, pass_at_k
from retool.evaluation.summary import summarize

__all__ = ["bootstrap_interval", "majority_at_k", "pass_at_k", "summarize"]
