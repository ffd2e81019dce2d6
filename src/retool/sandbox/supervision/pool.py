"""Workers of one kind, made ahead: what zygotes and fresh interpreters have in common for the supervisor."""

import selectors
from abc import ABC, abstractmethod
from collections import deque
from typing import Any, Protocol

from retool.sandbox.interpreter.job import End
from retool.sandbox.supervision.execution import Execution
from retool.sandbox.supervision.session import Session
from retool.sandbox.supervision.worker import Worker


class Owner(Protocol):
    """Who is told what happens to a pool and its workers."""

    def pool_ready(self, pool: "Pool", isolation: dict[str, Any]) -> None: ...
    def worker_ended(self, worker: Worker, end: End) -> None: ...
    def block_ended(self, session: Session, end: End, kept: bool) -> None: ...
    def session_lost(self, session: Session) -> None: ...
    def pool_died(self, pool: "Pool") -> None: ...


class Pool(ABC):
    """Has room for `slots` workers for code of `kind`, and keeps `spare` of them ready."""

    def __init__(self, kind: str, slots: int, spare: int, selector: selectors.BaseSelector, owner: Owner) -> None:
        self.kind = kind
        self.proven = False
        """Whether one of its workers has been ready."""
        self.failure = ""
        """Why its workers could not be set up, if they could not."""
        self._slots, self._spare = slots, spare
        self._selector = selector
        self._owner = owner
        self._workers: dict[int, Worker] = {}  # by pid
        self._idle: deque[Worker] = deque()
        self._failures = 0  # in a row

    def successor(self) -> "Pool":
        """Another one like it."""
        return type(self)(self.kind, self._slots, self._spare, self._selector, self._owner)

    @property
    def idle(self) -> int:
        """How many workers wait for an execution."""
        return len(self._idle)

    @property
    def running(self) -> list[Worker]:
        """The workers that have an execution."""
        return [worker for worker in self._workers.values() if worker.execution and not worker.is_closed]

    @property
    @abstractmethod
    def room(self) -> int:
        """How many more workers and sessions it can have."""

    def start(self, execution: Execution) -> Worker:
        """Run `execution` in a worker that is idle."""
        worker = self._idle.popleft()
        worker.start(execution)
        return worker

    @abstractmethod
    def prepare(self, wanted: int) -> None:
        """Have workers made until `wanted`, or at least the spare ones, are idle or about to be."""

    @property
    @abstractmethod
    def next_preparation(self) -> float:
        """When (on the monotonic clock) a worker will have been idle for so long that it is to prepare for its job."""

    @abstractmethod
    def prepare_rested(self, now: float) -> None:
        """Let workers that have been idle for so long do what can be done before their job comes."""

    @abstractmethod
    def open_session(self, kind: str) -> Session:
        """Start a session for executions of `kind`. Raises OSError if that is not possible."""

    @abstractmethod
    def end(self, deadline: float) -> None:
        """End it and all its workers, by force after `deadline` (of the monotonic clock)."""
