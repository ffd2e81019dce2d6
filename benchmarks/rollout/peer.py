"""A peer in a Python of its own: a program that reads JSON lines and answers each with one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Peer:
    """`script`, run by `python`; it gets `setup` as its first line, and can import `retool` and these benchmarks.

    Between questions it waits on a pipe and takes no CPU time. Its standard error is this process's.
    """

    def __init__(self, python: Path, script: Path, threads: int, setup: dict[str, Any]) -> None:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "benchmarks")]),
            "OMP_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
        }
        self._name = script.name
        self._process = subprocess.Popen(
            [python, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.facts = self.ask(setup)

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self._name} ended with status {self._process.wait()} instead of an answer")
        return json.loads(answer)

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def children() -> set[int]:
    """Process ids of this process's children."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(pid) for task in tasks for pid in task.read_text().split()}


@contextmanager
def stopped(leaders: Iterable[int]) -> Iterator[None]:
    """The process groups of some session leaders do not run meanwhile: a server that has nothing to do still wakes up
    often enough to hold up whoever computes on all cores."""
    for leader in leaders:
        os.killpg(leader, signal.SIGSTOP)
    try:
        yield
    finally:
        for leader in leaders:
            os.killpg(leader, signal.SIGCONT)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
