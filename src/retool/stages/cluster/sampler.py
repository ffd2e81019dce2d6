"""A process that samples: a workbench of its own, and the agent loops that go with it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import ray
from ray.actor import ActorHandle

from retool.cluster.groups import Group
from retool.config.schema import Config
from retool.errors import RetoolError
from retool.stages.cluster.messages import Published
from retool.stages.cluster.places import beside_learner
from retool.stages.cluster.sandboxes import NearestSandbox
from retool.stages.progress import Progress, console
from retool.types import Problem

if TYPE_CHECKING:
    from retool.stages.bench import Rollout


class SamplerActor:
    """Rolls out groups of trajectories, many at a time, with the weights that it was last given.

    All coroutines run in one event loop, and all of torch in its thread. What imports torch is imported there alone:
    the controller, which names this class, starts without.
    """

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._opening: asyncio.Task[str] | None = None

    async def open(self, config: Config, problems: Sequence[Problem], arm: str, controller: ActorHandle) -> str:
        """Load the model and be ready for any of `problems`; the node that this is on. To be called once."""
        import torch

        from retool.learner.policy import load_trainable
        from retool.stages.workbench import open_workbench, prepare_torch

        self._opening = asyncio.current_task()
        console.quiet = True  # a step's progress is told by the learner
        prepare_torch(config)
        model, tokenizer = load_trainable(config.model, config.seed, None)
        if config.cluster.placement == "colocated" and model.device.type == "cuda":
            config = beside_learner(config, torch.cuda.mem_get_info(model.device)[1])
        node = ray.get_runtime_context().get_node_id()
        sandbox = NearestSandbox(node, lambda: controller.sandboxes.remote())
        self._model, self._version = model.requires_grad_(False), -1
        self._bench = await self._stack.enter_async_context(
            open_workbench(config, model, tokenizer, problems, model_name=config.model.path, arm=arm, executor=sandbox)
        )
        return node

    async def lives(self) -> None:
        """Ends with this actor, by which others learn of it."""
        await asyncio.Event().wait()

    async def update(self, published: Published) -> None:
        """Sample with these weights from now on; trajectories under way go on with them. Raises RetoolError where they
        have not arrived whole: then this sampler is of no use any more."""
        from retool.learner.adapters import merged_parameters
        from retool.stages.cluster.weights import take_over

        await take_over(published, self._model)
        await self._bench.sampler.update(published.version, merged_parameters(self._model))
        self._version = published.version

    async def roll_out(self, group: Group) -> tuple[None, Rollout]:
        """Two results, so that who waits for the end of it need not fetch what has come of it."""
        if self._version < group.oldest:
            raise RetoolError(
                f"this sampler has weights of version {self._version}, and group {group.key} is to be begun with "
                f"version {group.oldest} or newer"
            )
        ask = group.ask
        return None, await self._bench.roll_out(
            [group.problem],
            step=ask.step,
            samples=ask.samples,
            sampling=ask.sampling,
            progress=Progress("sampler", 1),
            arm=ask.arm,
            oversample=ask.oversample,
            rewards=ask.rewards,
        )

    async def close(self) -> None:
        """End what was started for it, such as a server, or is being started."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        await self._stack.aclose()
