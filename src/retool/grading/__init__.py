"""Grading: is the answer that the model itself wrote right?"""

from retool.grading.extract import extract_answer
from retool.grading.grade import Grader

__all__ = ["Grader", "extract_answer"]
