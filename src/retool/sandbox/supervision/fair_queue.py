"""Executions that wait for a worker."""

from collections import Counter, OrderedDict, deque
from collections.abc import Collection

from retool.sandbox.supervision.execution import Execution


class FairQueue:
    """Serves groups (trajectories) in turns, and the executions of a group oldest first.

    So a trajectory with a hundred calls does not keep one with a single call waiting.
    """

    def __init__(self) -> None:
        self._groups: OrderedDict[str, dict[str, deque[Execution]]] = (
            OrderedDict()
        )  # by group, by kind; next turn first
        self._waiting: Counter[str] = Counter()  # by kind
        self._by_id: dict[int, Execution] = {}

    def put(self, execution: Execution) -> None:
        kinds = self._groups.setdefault(execution.group, {})
        kinds.setdefault(execution.kind, deque()).append(execution)
        self._waiting[execution.kind] += 1
        self._by_id[execution.id] = execution

    def take(self, kinds: Collection[str]) -> Execution | None:
        """Remove and return what is next among the executions of `kinds`."""
        if not any(self._waiting[kind] for kind in kinds):
            return None
        for group, queues in self._groups.items():
            heads = [queues[kind][0] for kind in kinds if kind in queues]
            if heads:
                chosen = min(heads, key=lambda execution: execution.queued_at)
                self._groups.move_to_end(group)
                self._remove(chosen)
                return chosen
        raise AssertionError("the count of waiting executions is wrong")

    def discard(self, execution_id: int) -> None:
        """Remove an execution, if it is still waiting."""
        if execution := self._by_id.get(execution_id):
            self._remove(execution)

    def take_all(self, kind: str) -> list[Execution]:
        """Remove and return all executions of `kind`."""
        taken = [execution for execution in self._by_id.values() if execution.kind == kind]
        for execution in taken:
            self._remove(execution)
        return taken

    def waiting(self, kind: str) -> int:
        return self._waiting[kind]

    def _remove(self, execution: Execution) -> None:
        queues = self._groups[execution.group]
        queue = queues[execution.kind]
        queue.remove(execution)  # the first one, unless it was cancelled
        if not queue:
            del queues[execution.kind]
        if not queues:
            del self._groups[execution.group]
        self._waiting[execution.kind] -= 1
        del self._by_id[execution.id]
