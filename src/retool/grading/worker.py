"""The process that math-verify runs in: one JSON question a line in, one JSON answer a line out.

Until it says "ready", stderr tells why it could not; after that nobody reads it.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from typing import Any

_DECIMALS = 6
_SIGNIFICANT = 4  # of a number so small that six decimals would leave less of it


def main() -> None:
    from math_verify import parse, verify

    def equal(reference: str, answer: str) -> bool:
        # The parent holds the clock, so math-verify's own (which needs signals) is off.
        parsed = [parse(f"${text}$", parsing_timeout=None) for text in (reference, answer)]
        rounding = max(map(_decimals, parsed))
        return bool(verify(*parsed, rounding, allow_set_relation_comp=True, timeout_seconds=None))

    if not equal("2\\sqrt{2}", "\\sqrt{8}"):  # what goes wrong in its parser, math-verify swallows
        sys.exit("math-verify cannot read LaTeX: pip install --force-reinstall 'math-verify[antlr4_13_2]' repairs it")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    print("ready", flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, 2 * question["seconds"])  # ends a hung worker whose parent was killed
        try:
            reply = {"equal": equal(question["reference"], question["answer"])}
        except (RecursionError, MemoryError, OverflowError):
            reply = {"equal": False}  # too deep or too big to be an answer
        except Exception as error:  # reported to the parent, which raises it
            reply = {"error": f"{type(error).__name__}: {error}"}
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(reply), flush=True)


def _decimals(parsed: list[Any]) -> int:
    """How many decimals two numbers must share: 0.0000672 is not 0.0000671."""
    sizes = [abs(value) for value in parsed if getattr(value, "is_Number", False)]
    small = [float(size) for size in sizes if 1e-300 < size < 1]
    return max([_DECIMALS, *(_SIGNIFICANT - 1 - math.floor(math.log10(size)) for size in small)])


if __name__ == "__main__":
    main()
