"""Sandboxes of a cluster: one supervisor a node, which its samplers share; what finds it full goes to another one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorUnschedulableError, RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from retool.config.sandbox import SandboxConfig
from retool.errors import first_line
from retool.sandbox import Result, Sandbox, Session
from retool.types import CallStatus

if TYPE_CHECKING:
    from retool.stages.cluster.controller import Controller

_LOOK_SECONDS = 1.0  # between two looks at which nodes there are
_PAUSE_SECONDS = 0.1  # before sandboxes are asked again that were all full, or gone
_GONE_SECONDS = 120.0  # after which a call is given up that no sandbox takes
_LOST = Result(CallStatus.SANDBOX_ERROR, reason="the sandbox that held the session's state was lost")


class SandboxActor:
    """A `Sandbox` that the samplers of a cluster call. More than `queue` calls do not wait in it."""

    def __init__(self, config: SandboxConfig, queue: int):
        self._sandbox = Sandbox(config)
        self._most = self._sandbox.workers + queue
        self._under_way = 0
        self._sessions: dict[str, Session] = {}

    async def isolation(self) -> dict[str, Any]:
        """Starts the sandbox. Raises RetoolError as `Sandbox.start` does."""
        await asyncio.to_thread(self._sandbox.start)
        return self._sandbox.isolation

    async def lives(self) -> None:
        """Ends with this actor, by which others learn of it."""
        await asyncio.Event().wait()

    async def run(self, code: str, key: object, group: str, echo: bool) -> Result | None:
        """As `Sandbox.run`; None: it is full."""
        return await self._unless_full(lambda: self._sandbox.run(code, key=key, group=group, echo=echo))

    async def run_block(self, session: str, opens: bool, code: str, key: object, group: str, echo: bool) -> Result:
        """As `Session.run`, of the session of that name, which the first block opens."""
        if opens:
            self._sessions[session] = self._sandbox.session(key, group=group)
        elif session not in self._sessions:
            return _LOST
        return await self._sessions[session].run(code, echo=echo)

    async def close(self, session: str) -> None:
        if found := self._sessions.pop(session, None):
            found.close()

    async def _unless_full(self, call: Callable[[], Awaitable[Result]]) -> Result | None:
        if self._under_way >= self._most:
            return None
        self._under_way += 1
        try:
            return await call()
        finally:
            self._under_way -= 1


@dataclass(frozen=True, slots=True)
class PlacedSandbox:
    """A `SandboxActor` and the node that it is on."""

    node: str
    actor: ActorHandle


class NearestSandbox:
    """The sandboxes of a cluster as an `Executor`: that of this node first, then the others.

    `find` says which there are now. A program whose sandbox is lost is run by another one; a session's state is lost
    with its sandbox, as on one machine. Cancelling a call kills the execution.
    """

    def __init__(self, node: str, find: Callable[[], Awaitable[Sequence[PlacedSandbox]]]):
        self._node, self._find = node, find
        self._found: list[PlacedSandbox] = []
        self._isolation: dict[str, Any] = {}
        self._sessions = 0

    @property
    def isolation(self) -> dict[str, Any]:
        """Of the nearest one when this was entered."""
        return self._isolation

    async def __aenter__(self) -> Self:
        self._isolation = await self._first(lambda sandbox: sandbox.isolation.remote())
        return self

    async def __aexit__(self, *_: object) -> None:
        """They belong to the cluster."""

    async def run(self, code: str, *, key: object = None, group: str = "", echo: bool = False) -> Result:
        """As `Sandbox.run`."""
        try:
            return await self._first(lambda sandbox: sandbox.run.remote(code, key, group, echo))
        except TimeoutError:
            return Result(CallStatus.SANDBOX_ERROR, reason="no sandbox of the cluster could be reached")

    @contextmanager
    def session(self, key: object = None, *, group: str = "") -> Iterator[_RemoteSession]:
        """As `Sandbox.session`."""
        self._sessions += 1
        session = _RemoteSession(self, f"{self._node}-{id(self)}-{self._sessions}", key, group)
        try:
            yield session
        finally:
            session.close()

    async def nearest(self) -> ActorHandle:
        """The first one that answers."""

        async def itself(sandbox: ActorHandle) -> ActorHandle:
            await sandbox.isolation.remote()
            return sandbox

        return await self._first(itself)

    async def _first(self, ask: Callable[[ActorHandle], Awaitable[Any]]) -> Any:
        """The first answer that is not None. Raises TimeoutError if all are gone for long."""
        deadline = None
        while True:
            is_any = False
            for sandbox in self._found:
                try:
                    answer = await _cancelled_together(ask(sandbox.actor))
                except RayActorError:
                    continue
                if answer is not None:
                    return answer
                is_any = True
            now = asyncio.get_running_loop().time()
            deadline = None if is_any else deadline or now + _GONE_SECONDS
            if deadline and now > deadline:
                raise TimeoutError
            if self._found:
                await asyncio.sleep(_PAUSE_SECONDS)
            self._found = sorted(await self._find(), key=lambda sandbox: sandbox.node != self._node)


class _RemoteSession:
    """Stays with the sandbox that its first block ran in."""

    def __init__(self, sandboxes: NearestSandbox, name: str, key: object, group: str):
        self._sandboxes, self._name, self._key, self._group = sandboxes, name, key, group
        self._actor: ActorHandle | None = None

    async def run(self, code: str, *, echo: bool = False) -> Result:
        opens = self._actor is None
        if self._actor is None:
            self._actor = await self._sandboxes.nearest()
        try:
            block = self._actor.run_block.remote(self._name, opens, code, self._key, self._group, echo)
            return await _cancelled_together(block)
        except RayActorError:
            return _LOST

    def close(self) -> None:
        if self._actor is not None:
            self._actor.close.remote(self._name)


async def _cancelled_together(asked: Awaitable[Any]) -> Any:
    """What a call answers; where this is cancelled, the call is."""
    try:
        return await asked
    except asyncio.CancelledError:
        if isinstance(asked, ray.ObjectRef):
            ray.cancel(asked)
        raise


async def keep_sandboxes(controller: Controller) -> None:
    """Have a sandbox on each node, or on as many as `cluster.sandboxes` says, for ever. Raises RetoolError where the
    system cannot contain code."""
    kept: dict[str, asyncio.Task[None]] = {}
    try:
        while True:
            for node in [node for node, task in kept.items() if task.done()]:
                kept.pop(node).result()
            for node in sorted(each["NodeID"] for each in ray.nodes() if each["Alive"]):
                if node not in kept and len(kept) < (controller.cluster.sandboxes or len(kept) + 1):
                    kept[node] = asyncio.create_task(_keep_sandbox(controller, node))
            await asyncio.sleep(_LOOK_SECONDS)
    finally:
        for task in kept.values():
            task.cancel()


async def _keep_sandbox(controller: Controller, node: str) -> None:
    """Until it is lost; then the node may be lost too."""
    place = NodeAffinitySchedulingStrategy(node, soft=False)
    config = controller.task.config.sandbox
    options = {"num_cpus": 0, "max_concurrency": 1 << 16, "scheduling_strategy": place}
    actor = ray.remote(SandboxActor).options(**options).remote(config, controller.cluster.sandbox_queue)
    try:
        await actor.isolation.remote()
        controller.sandboxes_by_node[node] = PlacedSandbox(node, actor)
        await actor.lives.remote()
    except (RayActorError, ActorUnschedulableError) as error:
        controller.record("sandbox_lost", node=node, why=first_line(error))
    except RayTaskError as error:
        raise error.cause from None
    finally:
        controller.sandboxes_by_node.pop(node, None)
        ray.kill(actor)
