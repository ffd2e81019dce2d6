"""Is an answer equal to the reference? Integers, and what differs in looks only, at once; the rest by math-verify.

math-verify parses LaTeX with SymPy, which can take forever on hostile input such as 9^{9^{9^9}}. It therefore runs in
a process of its own with a hard limit, started only when it is needed.
"""

from __future__ import annotations

import contextlib
import json
import re
import selectors
import subprocess
import sys
import threading
import time
from decimal import Decimal
from typing import Self

from retool.errors import RetoolError
from retool.grading.notation import other_brackets, plain, same_in_base, same_text, with_fractions
from retool.grading.units import units_differ, without_units

_INTEGER = re.compile(r"[+-]?(\d+|\d{1,3}(,\d{3})+)(\.0*)?")
_START_SECONDS = 60.0  # importing SymPy on a busy machine
_REMEMBERED = 1 << 16  # comparisons that are not made twice


class Grader:
    """Compares answers with references. `timeouts` counts comparisons that hit the limit and were taken as wrong.

    Threads may share one; their questions wait for each other.
    """

    def __init__(self, seconds: float = 5.0):
        self.timeouts = 0
        self._seconds = seconds
        self._lock = threading.RLock()
        self._worker: subprocess.Popen[bytes] | None = None
        self._known: dict[tuple[str, str], bool] = {}  # samples of one problem often agree

    def grade(self, answer: str | None, reference: str) -> bool:
        """True if `answer` (None: there is none) is mathematically equal to `reference`."""
        if answer is None or not answer.strip():
            return False
        ours, theirs = exact_integer(answer), exact_integer(reference)
        if ours is not None and theirs is not None:
            return ours == theirs
        if same_text(answer, reference):
            return True
        if (same := same_in_base(answer, reference)) is not None:
            return same
        if other_brackets(answer, reference) or units_differ(answer, reference):
            return False
        if (values := without_units(answer, reference)) is not None:
            return self.grade(*values)
        return self._verify(with_fractions(answer), with_fractions(reference))

    def _verify(self, answer: str, reference: str) -> bool:
        question = {"answer": answer, "reference": reference, "seconds": self._seconds}
        with self._lock:
            if (known := self._known.get((answer, reference))) is not None:
                return known
            try:
                line = self._ask(json.dumps(question).encode() + b"\n")
            except BaseException:  # such as Ctrl-C: the answer to this question would be read as that to the next
                self.close()
                raise
            if not line:  # hung, or killed by what it computed; either way not an answer to be paid for
                self.timeouts += 1
                self.close()
                return False
        reply = json.loads(line)
        if "error" in reply:
            raise RetoolError(f"math-verify failed on {answer[:80]!r}: {reply['error']}")
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[answer, reference] = reply["equal"]
        return reply["equal"]

    def _ask(self, question: bytes) -> bytes:
        """The worker's answer; b"" if there is none in time."""
        if self._worker is not None and self._worker.poll() is not None:
            self.close()  # it died since the last question, which is not this answer's fault
        worker = self._worker or self._start()
        try:
            worker.stdin.write(question)
            worker.stdin.flush()
            return _read_line(worker, self._seconds)
        except (BrokenPipeError, TimeoutError):
            return b""

    def _start(self) -> subprocess.Popen[bytes]:
        # -P: a sympy.py in the user's folder is none of ours. A session of its own: Ctrl-C is for the parent.
        self._worker = subprocess.Popen(
            [sys.executable, "-P", "-m", "retool.grading.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            ready = _read_line(self._worker, _START_SECONDS)
        except TimeoutError as error:
            self.close()
            raise RetoolError(
                f"the grading worker was not ready after {_START_SECONDS:.0f} s: this machine has too much to do, or "
                "too little memory left; free some of it and run the same command again"
            ) from error
        if ready.strip() != b"ready":
            self._worker.kill()
            detail = self._worker.stderr.read().decode(errors="replace").strip().splitlines()
            raise RetoolError(f"the grading worker did not start: {detail[-1] if detail else 'no reason given'}")
        return self._worker

    def close(self) -> None:
        """End the worker, if there is one."""
        with self._lock:
            if self._worker is None:
                return
            self._worker.kill()
            self._worker.wait()
            for pipe in (self._worker.stdin, self._worker.stdout, self._worker.stderr):
                with contextlib.suppress(BrokenPipeError):  # what was still unsent went with the worker
                    pipe.close()
            self._worker = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def exact_integer(text: str) -> int | None:
    """The integer that `text` writes: signs, leading zeros, thousands, `.0`, dollars, other looks; else None."""
    text = plain(text).replace("\\$", "").replace("{,}", ",").replace("−", "-").strip()
    match = _INTEGER.fullmatch(text)
    # through Decimal, as int() refuses a text of more than 4300 digits
    return int(Decimal(match.group().split(".")[0].replace(",", ""))) if match else None


def _read_line(worker: subprocess.Popen[bytes], seconds: float) -> bytes:
    """One line from the worker; b"" if it ended. Raises TimeoutError."""
    deadline, line = time.monotonic() + seconds, b""
    with selectors.DefaultSelector() as selector:
        selector.register(worker.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                raise TimeoutError
            chunk = worker.stdout.read1(1 << 16)
            if not chunk:
                return b""
            line += chunk
    return line
