"""The trusted process that owns queue, clocks, output and verdicts, and what it knows of the processes below it."""
