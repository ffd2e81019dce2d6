"""A process of the gang that trains together: it runs `run_rl`, which samples elsewhere."""

from __future__ import annotations

import asyncio
import os
import socket
from functools import partial

import ray
from ray.actor import ActorHandle

from retool.errors import RetoolError
from retool.stages.cluster.messages import Outcome, Run


class LearnerActor:
    """Number `rank` of a gang of `size`. Its calls run in the main thread, where signals can be told of.

    What imports torch is imported by its process alone: the controller, which names this class, starts without.
    """

    def address(self) -> tuple[str, int]:
        """Where the others can meet this one, which is to be the first."""
        with socket.socket() as found:
            found.bind(("", 0))
            return ray.util.get_node_ip_address(), found.getsockname()[1]

    def run(
        self, run: Run, controller: ActorHandle, gang: int, rank: int, size: int, first: tuple[str, int]
    ) -> Outcome:
        """Train until the end, with the others at the address `first`. What a user is to be told is an outcome;
        anything else is raised."""
        from retool.stages.cluster.bench import ClusterBench
        from retool.stages.training.rl import run_rl

        if size > 1:
            names = {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": first[0], "MASTER_PORT": first[1]}
            names["LOCAL_RANK"] = 0  # Ray shows each process no GPU but its own
            os.environ.update({name: str(value) for name, value in names.items()})
        bench = partial(ClusterBench, run.config, run.out, run.arm, controller, gang)
        try:
            last = asyncio.run(run_rl(run.config, run.training, run.heldout, run.out, run.arm, bench))
        except RetoolError as error:
            return Outcome(error=str(error), exit_code=error.exit_code)
        return Outcome(str(last))
