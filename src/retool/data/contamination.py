"""Decontamination: which training problems are those of an evaluation set too, as a whole or in a long run of words.

The usual test for language models (n-grams of 13 words, as for GPT-3), on words without case, punctuation and the
commands of LaTeX.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from retool.types import Problem

_SHORTEST = 6  # words: a shorter evaluation problem ("Find x") is only looked for as a whole problem
_NOISE = re.compile(r"\\[a-zA-Z]+|[\\$]")
_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+|[-+*/^=<>!]")


@dataclass(frozen=True, slots=True)
class Match:
    """An evaluation problem, and what a training problem shares with it: "the whole text" or the shared words."""

    problem: Problem
    shared: str


class EvaluationProblems:
    """Problems that must not be trained on, indexed by their runs of `ngram` words."""

    def __init__(self, problems: Iterable[Problem], ngram: int):
        self._whole: dict[tuple[str, ...], Problem] = {}
        self._runs: dict[tuple[str, ...], Problem] = {}
        for problem in problems:
            words = _words(problem.text)
            self._whole.setdefault(words, problem)
            for run in _runs_of(words, min(ngram, max(len(words), _SHORTEST))):
                self._runs.setdefault(run, problem)
        self._lengths = sorted({len(run) for run in self._runs}, reverse=True)

    def match(self, problem: Problem) -> Match | None:
        """What `problem` has in common with one of them, if that is too much."""
        words = _words(problem.text)
        if words in self._whole:
            return Match(self._whole[words], "the whole text")
        for length in self._lengths:
            for run in _runs_of(words, length):
                if run in self._runs:
                    return Match(self._runs[run], " ".join(run))
        return None


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(_NOISE.sub(" ", text.casefold())))


def _runs_of(words: tuple[str, ...], length: int) -> Iterator[tuple[str, ...]]:
    return (words[begin : begin + length] for begin in range(len(words) - length + 1))
