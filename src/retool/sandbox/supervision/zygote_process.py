"""A zygote as the supervisor sees it: a process that forks workers, the ones that are ready, and the ones that run."""

import itertools
import json
import math
import os
import selectors
import signal
import socket
import sys
import time

from retool.sandbox.interpreter import orders
from retool.sandbox.interpreter.job import End
from retool.sandbox.interpreter.orders import Report
from retool.sandbox.interpreter.preload import sample
from retool.sandbox.supervision.pool import Owner, Pool
from retool.sandbox.supervision.process import NumberedProcess, Process
from retool.sandbox.supervision.session import Session
from retool.sandbox.supervision.worker import Worker

_CHUNK_BYTES = 1 << 18
_DESCRIPTORS = 256
_SETUP_FAILURES_ALLOWED = 3
_REHEARSALS = 8
"""How many children a zygote forks for nothing at first. By then its memory is the same before each fork, so that the
same code finds the same addresses in all later ones."""

_COMMAND = (
    "import sys; from retool.sandbox.interpreter import preload; preload.preload(sys.argv[1]); "
    "from retool.sandbox.interpreter import zygote; zygote.main(int(sys.argv[2]), preload.sample(sys.argv[1]))"
)

_REST_SECONDS = 0.005
_PREPARED = 2
"""A worker that has waited so long is prepared for its job, which takes it some milliseconds; so many at once."""

_FIRST_NUMBER = 1 << 10
"""Python keeps small integers ready. From this one on each takes memory, so a zygote's is the same at each fork."""


class ZygoteProcess(Pool):
    """Workers that are forks of one zygote, which it starts."""

    def __init__(self, kind: str, slots: int, spare: int, selector: selectors.BaseSelector, owner: Owner) -> None:
        super().__init__(kind, slots, spare, selector, owner)
        self._ready = False
        self._numbers = itertools.count(_FIRST_NUMBER)
        self._free_slots = list(range(slots - 1, -1, -1))
        self._forking: dict[int, Worker | Session] = {}  # by number: asked for, not yet forked
        self._sessions: set[Session] = set()
        self._unready: dict[int, Worker] = {}  # by number: not locked down yet
        self._rehearsals = _REHEARSALS
        self._reports = bytearray()
        self._descriptors: list[int] = []
        self._socket, far_end = socket.socketpair()
        arguments = [sys.executable, "-P", "-c", _COMMAND, kind, str(slots)]
        standard_input = (os.POSIX_SPAWN_DUP2, far_end.fileno(), 0)
        with far_end:
            self._pid = os.posix_spawn(sys.executable, arguments, os.environ, file_actions=[standard_input])
        self._socket.setblocking(False)
        selector.register(self._socket, selectors.EVENT_READ, self._hear)

    @property
    def room(self) -> int:
        return len(self._free_slots)

    def prepare(self, wanted: int) -> None:
        if not self._ready:
            return
        missing = max(wanted, self._spare) - len(self._idle) - len(self._unready)
        for _ in range(min(missing, len(self._free_slots))):
            try:
                self._spawn()
            except OSError as error:
                self.failure = f"a process for the code could not be started: {error.strerror}"
                return

    @property
    def next_preparation(self) -> float:
        unprepared = (worker.ready_since for worker in self._next_idle if not worker.has_prepared)
        return min(unprepared, default=math.inf) + _REST_SECONDS

    def prepare_rested(self, now: float) -> None:
        for worker in self._next_idle:
            if not worker.has_prepared and worker.ready_since + _REST_SECONDS <= now:
                worker.prepare()

    @property
    def _next_idle(self) -> list[Worker]:
        """Those that come next, where there is something to prepare for code of their kind."""
        return list(itertools.islice(self._idle, _PREPARED)) if sample(self.kind) else []

    def open_session(self, kind: str) -> Session:
        number, slot, owner = next(self._numbers), self._free_slots.pop(), self._owner
        try:
            session = Session(number, slot, kind, self._selector, owner.block_ended, owner.session_lost, self._vacate)
        except OSError:
            self._free_slots.append(slot)
            raise
        self._sessions.add(session)
        self._order(session)
        return session

    def end(self, deadline: float) -> None:
        for session in list(self._sessions):
            session.lose()
        workers = [worker for worker in self._forking.values() if isinstance(worker, Worker)]
        for worker in (*self._workers.values(), *workers):
            if not worker.is_closed:
                worker.kill()
                worker.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._selector.unregister(self._socket)
        self._socket.close()
        while os.waitpid(self._pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
                break
            time.sleep(0.002)

    def _spawn(self) -> None:
        slot, selector = self._free_slots[-1], self._selector
        worker = Worker(next(self._numbers), slot, selector, self._worker_ready, self._worker_done)
        self._free_slots.pop()
        self._unready[worker.number] = worker
        self._order(worker)

    def _order(self, worker: Worker | Session) -> None:
        self._forking[worker.number] = worker
        order = orders.ORDER.pack(isinstance(worker, Session), worker.number, worker.slot)
        try:
            socket.send_fds(self._socket, [order], worker.far_ends)
        except OSError as error:
            self._not_forked(worker.number, error.strerror)
        finally:
            worker.release_far_ends()

    def _not_forked(self, number: int, reason: str) -> None:
        worker = self._forking.pop(number)
        if isinstance(worker, Session):
            worker.lose()
        else:
            del self._unready[number]
            self._forget(worker)
        self._fail(reason)

    def _vacate(self, session: Session) -> None:
        self._sessions.discard(session)
        self._free_slots.append(session.slot)

    def _forget(self, worker: Worker) -> str:
        self._free_slots.append(worker.slot)
        return "" if worker.is_closed else worker.close()

    def _worker_done(self, worker: Worker, end: End) -> None:
        if worker.execution:
            worker.take_output()
            self._owner.worker_ended(worker, end)

    def _worker_ready(self, worker: Worker) -> None:
        self._failures = 0
        del self._unready[worker.number]
        if self._rehearsals:
            self._rehearsals -= 1
            worker.dismiss()
            return
        self.proven = True
        self._idle.append(worker)

    def _hear(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, _CHUNK_BYTES, _DESCRIPTORS)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data, descriptors = b"", []
        self._descriptors += descriptors
        if not data:
            self._owner.pool_died(self)
            return
        self._reports += data
        while report := Report.take(self._reports):
            self._obey(report)

    def _obey(self, report: Report) -> None:
        match report.kind:
            case orders.FIRST:  # the process that was started has ended, and this one is to be watched instead
                os.waitpid(self._pid, 0)
                self._pid = report.pid
                self._socket.send(b"!")
            case orders.READY:
                self._ready = True
                isolation = json.loads(self._reports[: report.value])
                del self._reports[: report.value]
                self._owner.pool_ready(self, isolation)
            case orders.FORKED:
                worker = self._forking.pop(report.number)
                if isinstance(worker, Worker):
                    self._workers[report.pid] = worker
                worker.begins(Process(self._descriptors.pop(0)) if report.value else NumberedProcess(report.pid))
            case orders.LOCKED:
                self._unready[report.number].locks(self._descriptors.pop(0) if report.value else None)
            case orders.FAILED:
                self._not_forked(report.number, os.strerror(report.value))
            case orders.EXITED:
                if worker := self._workers.pop(report.pid, None):  # a session watches its processes itself
                    self._bury(worker, End(report.value, report.cpu_s, report.peak_bytes))

    def _bury(self, worker: Worker, end: End) -> None:
        was_closed, reason = worker.is_closed, self._forget(worker)
        if was_closed:
            return  # its code had ended before
        if worker.execution:
            self._owner.worker_ended(worker, end)
            return
        if worker.dismissed:
            return
        if worker in self._idle:
            self._idle.remove(worker)
        else:
            del self._unready[worker.number]
        self._fail(reason or f"a process for the code ended while it was set up, wait status {end.status}")

    def _fail(self, reason: str) -> None:
        """One worker less than wanted. After some in a row something is wrong with this zygote."""
        self._failures += 1
        if self._failures > _SETUP_FAILURES_ALLOWED:
            self.failure = reason
            self._owner.pool_died(self)
