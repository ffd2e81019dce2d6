"""Cold-start traces: worked solutions in, verified code traces out (ReTool §2.2).

    sources → filtered (→ reviewed) → rewritten → executed → verified → balanced

Each stage reads the rows of the one before it and writes its own to `stages/` in the output folder, with those that it
dropped beside them. A stage that is done is not done again, and one that was stopped goes on with the rows that are
missing; the result is the same, byte by byte.
"""

from retool.stages.synth.recipe import synthesize

__all__ = ["synthesize"]
