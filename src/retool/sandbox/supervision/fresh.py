"""Workers without zygotes, for systems where forking an interpreter is unsafe (macOS): one interpreter for each.

Nothing contains the code here but resource limits. It is for development, with code that is not hostile.
"""

import math
import os
import platform
import resource
import selectors
import sys

from retool.sandbox.interpreter.job import End
from retool.sandbox.supervision.pool import Owner, Pool
from retool.sandbox.supervision.process import NumberedProcess
from retool.sandbox.supervision.session import Session
from retool.sandbox.supervision.worker import Worker

_COMMAND = (
    "import sys; from retool.sandbox.interpreter import preload; preload.preload(sys.argv[1]); "
    "from retool.sandbox.interpreter import single; single.main()"
)
_STARTS_ALLOWED = 3
_BYTES_OF_PEAK = 1 if sys.platform == "darwin" else 1024  # the unit of ru_maxrss

_REPORT = {
    "platform": f"{sys.platform} {platform.machine()}",
    "uid": os.getuid(),
    "namespaces": [],
    "private_root": False,
    "landlock": 0,
    "seccomp": False,
    "refused": [],
    "weak": "this system contains nothing but the use of CPU and files: run only code that you trust",
}


class FreshInterpreters(Pool):
    """Workers that are interpreters of their own, all of them started by this process."""

    def __init__(self, kind: str, slots: int, spare: int, selector: selectors.BaseSelector, owner: Owner) -> None:
        super().__init__(kind, slots, spare, selector, owner)
        self._started = 0
        owner.pool_ready(self, dict(_REPORT))

    @property
    def room(self) -> int:
        return self._slots - len(self._workers)

    def prepare(self, wanted: int) -> None:
        ahead = len(self._workers) - len(self.running)
        for _ in range(min(max(wanted, self._spare) - ahead, self.room)):
            self._spawn()

    @property
    def next_preparation(self) -> float:
        return math.inf

    def prepare_rested(self, now: float) -> None:
        """There is nothing to prepare."""

    def open_session(self, kind: str) -> Session:
        raise OSError("sessions need Linux")

    def reap(self) -> None:
        """See which processes have ended."""
        for pid, worker in list(self._workers.items()):
            ended, status, usage = os.wait4(pid, os.WNOHANG)
            if ended:
                del self._workers[pid]
                self._bury(worker, status, usage)

    def end(self, deadline: float) -> None:
        for pid, worker in self._workers.items():
            worker.kill()
            os.waitpid(pid, 0)
            worker.close()

    def _spawn(self) -> None:
        self._started += 1
        worker = Worker(self._started, 0, self._selector, self._worker_ready, when_done=lambda worker, end: None)
        worker.hear_that_it_is_ready()
        actions = [(os.POSIX_SPAWN_DUP2, end, target) for target, end in enumerate(worker.far_ends)]
        pid = os.posix_spawn(
            sys.executable, [sys.executable, "-P", "-c", _COMMAND, self.kind], os.environ, file_actions=actions
        )
        worker.release_far_ends()
        self._workers[pid] = worker
        worker.begins(NumberedProcess(pid))

    def _worker_ready(self, worker: Worker) -> None:
        self.proven = True
        self._failures = 0
        self._idle.append(worker)

    def _bury(self, worker: Worker, status: int, usage: resource.struct_rusage) -> None:
        reason = worker.close()
        if worker.execution:
            end = End(status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * _BYTES_OF_PEAK)
            self._owner.worker_ended(worker, end)
            return
        if worker in self._idle:
            self._idle.remove(worker)
        self._failures += 1
        if self._failures > _STARTS_ALLOWED:
            self.failure = reason or f"an interpreter for the code ended with wait status {status}"
            self._owner.pool_died(self)
