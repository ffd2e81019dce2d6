"""Training runs, fine-tuning (`sft`) and reinforcement learning (`rl`), and what both are kept going by.

Both are loops over steps in a `RunFolder`: data in an order that is a function of seed and step (`passes`), one process
or several (`processes`), rows for the logs and for trackers (`logbook`, `loggers`), checkpoints of which some stay
(`keeping`), a SIGTERM that saves (`stopping`), and, of RL, problems drawn anew for groups that teach nothing (`refill`)
and what ends a run that has gone wrong (`guards`).
"""
