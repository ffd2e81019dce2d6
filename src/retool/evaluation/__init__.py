"""Evaluation: what graded trajectories say about accuracy, how sure that is, and what changes between two sets."""

from retool.evaluation.comparison import compare, sign_flip_test
from retool.evaluation.statistics import bootstrap_interval, majority_at_k, pass_at_k
from retool.evaluation.summary import summarize

__all__ = ["bootstrap_interval", "compare", "majority_at_k", "pass_at_k", "sign_flip_test", "summarize"]
