"""The process that math-verify runs in: one JSON question a line in, one JSON answer a line out."""

from __future__ import annotations

import json
import signal
import sys


def main() -> None:
    from math_verify import parse, verify

    print("ready", flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, 2 * question["seconds"])  # ends a hung worker whose parent was killed
        try:
            # The parent holds the clock, so math-verify's own (which needs signals) is off.
            parsed = [parse(f"${text}$", parsing_timeout=None) for text in (question["reference"], question["answer"])]
            reply = {"equal": bool(verify(*parsed, timeout_seconds=None))}
        except (RecursionError, MemoryError, OverflowError):
            reply = {"equal": False}  # too deep or too big to be an answer
        except Exception as error:  # reported to the parent, which raises it
            reply = {"error": f"{type(error).__name__}: {error}"}
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
