"""What the server tells Prometheus, in a registry of its own."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from retool.sandbox.result import Result
from retool.types import CallStatus

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_REFUSALS = ("queue_full", "unavailable", "not_supported")


class Metrics:
    """Counts executions and requests. `waiting` and `running` are asked when the metrics are read."""

    def __init__(self, workers: int, waiting: Callable[[], int], running: Callable[[], int]) -> None:
        self._registry = registry = CollectorRegistry()
        Gauge("retool_sandbox_workers", "Executions that can run at the same time", registry=registry).set(workers)
        Gauge("retool_sandbox_waiting", "Requests that wait for a worker", registry=registry).set_function(waiting)
        Gauge("retool_sandbox_running", "Requests that have a worker", registry=registry).set_function(running)
        self._executions = Counter(
            "retool_sandbox_executions", "Executions that ended, by verdict", ["status"], registry=registry
        )
        self._refused = Counter(
            "retool_sandbox_refused", "Requests that were not executed, by reason", ["reason"], registry=registry
        )
        self._abandoned = Counter(
            "retool_sandbox_abandoned", "Executions cancelled because their client had gone", registry=registry
        )
        self._queue_seconds = Histogram(
            "retool_sandbox_queue_seconds", "Wait for a worker", buckets=_SECONDS, registry=registry
        )
        self._execution_seconds = Histogram(
            "retool_sandbox_execution_seconds", "Start to end of an execution", buckets=_SECONDS, registry=registry
        )
        for status in CallStatus:  # a series that starts at 0 shows its first increase
            if status is not CallStatus.MALFORMED:
                self._executions.labels(status)
        for reason in _REFUSALS:
            self._refused.labels(reason)

    def executed(self, result: Result) -> None:
        self._executions.labels(result.status).inc()
        self._queue_seconds.observe(result.queue_s)
        self._execution_seconds.observe(result.wall_s)

    def refused(self, reason: str) -> None:
        self._refused.labels(reason).inc()

    def abandoned(self) -> None:
        self._abandoned.inc()

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)
