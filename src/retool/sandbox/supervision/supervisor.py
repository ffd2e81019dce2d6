"""The trusted process between client and untrusted code: it owns queue, clocks, output and verdicts.

It runs in one thread, touches no code beyond passing it on, and imports little, because everything waits for its
start. It ends, with all that it started, when its client hangs up or dies.
"""

import json
import os
import selectors
import signal
import socket
import sys
import time
from typing import Any, NamedTuple, Self

from retool.sandbox import open_files, wire
from retool.sandbox.containment import linux
from retool.sandbox.interpreter.job import End
from retool.sandbox.interpreter.preload import KINDS
from retool.sandbox.supervision.execution import Execution, Verdict
from retool.sandbox.supervision.fair_queue import FairQueue
from retool.sandbox.supervision.fresh import FreshInterpreters
from retool.sandbox.supervision.pool import Pool
from retool.sandbox.supervision.session import Session
from retool.sandbox.supervision.worker import Worker
from retool.sandbox.supervision.zygote_process import ZygoteProcess

_CLIENT = 0
_CHUNK_BYTES = 1 << 18
_CORES_PER_ZYGOTE = 8
_OWN_FILES, _FILES_OF_A_WORKER, _FILES_OF_A_SESSION = 24, 6, 10
_LARGEST_BATCH = 64
_SHUTDOWN_SECONDS = 2.0
_SESSION_KIND = "scientific"
"""What sessions start from: nobody knows what their later blocks will import."""

_CANCELLED = Verdict("cancelled")  # told to nobody


class Settings(NamedTuple):
    """`workers` executions run at once; of `sessions` open at once each may rest for `session_idle_seconds`."""

    workers: int
    sessions: int
    session_idle_seconds: float

    def within(self, files: int, cores: int) -> Self:
        """As many of each as so many open `files` permit, where each kind of worker keeps some ready.

        These are as many as there are cores, or as may run at once if that is less.
        """
        sessions = min(self.sessions, files // 4 // _FILES_OF_A_SESSION)
        room = (files - _OWN_FILES - sessions * _FILES_OF_A_SESSION) // _FILES_OF_A_WORKER
        workers = max(room - len(KINDS) * cores, room // (1 + len(KINDS)))
        return self._replace(workers=max(1, min(self.workers, workers)), sessions=sessions)


class Supervisor:
    """Serves one client over the connected stream socket `client`."""

    def __init__(self, client: socket.socket, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._decoder = wire.Decoder()
        self._outbox = bytearray()
        self._selector = selectors.DefaultSelector()
        self._queue = FairQueue()
        self._pools: list[Pool] = []
        self._running: dict[int, Worker | Session] = {}  # by the id of the execution
        self._sessions: dict[int, Session] = {}
        self._unopened: dict[int, None] = {}  # sessions for which there is no room yet, in order
        self._fixed_addresses = linux.IS_LINUX and linux.fix_addresses()
        self._greeted = False
        self._serving = True
        self._kernel_kills = _out_of_memory_kills()

    def serve(self) -> None:
        self._client.setblocking(False)
        self._selector.register(self._client, selectors.EVENT_READ, self._receive)
        if linux.IS_LINUX:
            linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)  # a zygote may be the fork of the process that was started
            if linux.has_process_descriptors():
                self._selector.register(os.pidfd_open(os.getppid()), selectors.EVENT_READ, self._stop)
        else:
            self._watch_children()
        self._start_pools("light")
        while self._serving:
            self._flush()  # whoever waits for a result hears of it before anything else is started
            self._dispatch()
            self._flush()
            for key, _ in self._selector.select(self._seconds_to_next_check()):
                key.data()
            self._check_clocks()
        deadline = time.monotonic() + _SHUTDOWN_SECONDS
        for pool in self._pools:
            pool.end(deadline)

    def _watch_children(self) -> None:
        """Where there are no zygotes to tell, this process is told itself when a child has ended."""
        wakeup, child_ended = os.pipe()
        os.set_blocking(child_ended, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(child_ended, warn_on_full_buffer=False)

        def reap() -> None:
            os.read(wakeup, 4096)
            for interpreters in list(self._pools):
                interpreters.reap()

        self._selector.register(wakeup, selectors.EVENT_READ, reap)

    # The client

    def _receive(self) -> None:
        try:
            data = self._client.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self._stop()
        for message in self._decoder.feed(data):
            match message["op"]:
                case "run":
                    self._enqueue(Execution(message), opens=message["opens"])
                case "cancel":
                    self._cancel(message["id"])
                case "end":
                    self._end_session(message["session"])

    def _stop(self) -> None:
        """The client is gone. A fork of it may hold its end of the socket open, so its end of life is watched too."""
        self._serving = False

    def _send(self, message: dict[str, Any]) -> None:
        self._outbox += wire.encode(message)

    def _flush(self) -> None:
        interest = selectors.EVENT_READ
        try:
            while self._outbox:
                del self._outbox[: self._client.send(self._outbox)]
        except BlockingIOError:
            interest |= selectors.EVENT_WRITE
        except (BrokenPipeError, ConnectionResetError):
            self._outbox.clear()
            self._stop()
        if self._selector.get_key(self._client).events != interest:
            self._selector.modify(self._client, interest, self._receive)

    # The queue

    def _enqueue(self, execution: Execution, opens: bool) -> None:
        kind = execution.kind
        if execution.session is not None:
            if opens:
                self._unopened[execution.session] = None
            elif execution.session not in self._sessions and execution.session not in self._unopened:
                self._fail(execution, "the session has ended: it was lost, or rested for too long")
                return
            kind = _SESSION_KIND
        self._queue.put(execution)
        if not any(pool.kind == kind for pool in self._pools):
            self._start_pools(kind)

    def _cancel(self, execution_id: int) -> None:
        self._queue.discard(execution_id)
        if worker := self._running.get(execution_id):
            worker.execution.cancelled = True
            worker.kill(_CANCELLED)

    def _dispatch(self) -> None:
        """Start queued executions while there are free workers, and have more of these forked ahead."""
        self._open_sessions()
        free = self._settings.workers - len(self._running)
        while free > 0:
            idle = {pool.kind for pool in self._pools if pool.idle}
            idle |= {session.kind for session in self._sessions.values() if session.is_idle}
            execution = self._queue.take(idle)
            if execution is None:
                break
            self._running[execution.id] = self._start(execution)
            free -= 1
        for pool in self._pools:
            waiting = self._queue.waiting(pool.kind)
            if waiting or not pool.idle or not self._running:  # otherwise a fork would delay what is running
                pool.prepare(min(waiting, free, _LARGEST_BATCH))

    def _start(self, execution: Execution) -> Worker | Session:
        if execution.session is not None:
            session = self._sessions[execution.session]
            session.start(execution)
            return session
        fitting = [pool for pool in self._pools if pool.kind == execution.kind]
        return max(fitting, key=lambda pool: pool.idle).start(execution)

    # Sessions

    def _open_sessions(self) -> None:
        pools = [pool for pool in self._pools if pool.kind == _SESSION_KIND and pool.proven]
        while self._unopened and pools and len(self._sessions) < self._settings.sessions:
            session = next(iter(self._unopened))
            del self._unopened[session]
            pool, kind = max(pools, key=lambda pool: pool.room), f"session {session}"
            try:
                self._sessions[session] = pool.open_session(kind)
            except OSError as error:
                for execution in self._queue.take_all(kind):
                    self._fail(execution, f"the session could not be opened: {error}")

    def _end_session(self, number: int) -> None:
        self._unopened.pop(number, None)
        if session := self._sessions.pop(number, None):
            session.end()

    def block_ended(self, session: Session, end: End, kept: bool) -> None:
        """Answer the client with the verdict on a block of a session."""
        execution = session.execution
        del self._running[execution.id]
        verdict = execution.verdict(end.status, end.cpu_s, out_of_memory=False)
        if verdict.status == "ok" and not kept:
            verdict = Verdict("exit", "SystemExit: the code ended its process, so the session is as it was before")
        self._answer(execution, verdict, end)

    def session_lost(self, session: Session) -> None:
        """A session has ended by itself, with what it knew."""
        number = next(number for number, known in self._sessions.items() if known is session)
        del self._sessions[number]
        reason = session.failure or "the process that held the session's state was lost"
        if session.execution:
            del self._running[session.execution.id]
            self._fail(session.execution, reason)
        for execution in self._queue.take_all(session.kind):
            self._fail(execution, reason)

    def _end_idle_sessions(self, now: float) -> None:
        latest = now - self._settings.session_idle_seconds
        for number, session in list(self._sessions.items()):
            if session.is_idle and session.last_used < latest:
                self._end_session(number)

    # Clocks and verdicts

    def _seconds_to_next_check(self) -> float | None:
        checks = [worker.execution.next_check for worker in self._running.values()]
        rest = self._settings.session_idle_seconds
        checks += [session.last_used + rest for session in self._sessions.values() if session.is_idle]
        checks += [pool.next_preparation for pool in self._pools_at_rest]
        first = min(checks, default=float("inf"))
        return None if first == float("inf") else max(0.0, first - time.monotonic())

    def _check_clocks(self) -> None:
        now = time.monotonic()
        for worker in list(self._running.values()):
            if worker.execution.next_check <= now and (verdict := worker.execution.check(now, worker.clocks())):
                worker.kill(verdict)
        self._end_idle_sessions(now)
        for pool in self._pools_at_rest:
            pool.prepare_rested(now)

    def worker_ended(self, worker: Worker, end: End) -> None:
        """Answer the client with the verdict from how the child ended."""
        execution = worker.execution
        del self._running[execution.id]
        if not worker.has_begun and not execution.kill_verdict:
            self._fail(execution, "the process for the code was lost before it had begun")
            return
        killed = os.WIFSIGNALED(end.status) and os.WTERMSIG(end.status) == signal.SIGKILL
        end = end._replace(cpu_s=execution.cpu_s(end.cpu_s))
        verdict = execution.verdict(end.status, end.cpu_s, killed and self._kernel_killed())
        self._answer(execution, verdict, end)
        self._flush()  # before the rest of the process, which may still be there, takes a CPU

    def _answer(self, execution: Execution, verdict: Verdict, end: End) -> None:
        if execution.cancelled:
            return
        self._send(
            {
                "op": "result",
                "id": execution.id,
                "status": verdict.status,
                "reason": verdict.reason,
                "stdout": execution.stdout.text(),
                "stderr": execution.stderr.text(),
                "exit_code": _exit_code(verdict, end.status),
                "cpu_s": end.cpu_s,
                "wall_s": time.monotonic() - execution.started_at,
                "queue_s": execution.started_at - execution.queued_at,
                "peak_bytes": end.peak_bytes,
            }
        )

    def _fail(self, execution: Execution, reason: str) -> None:
        """Answer that the sandbox itself has failed; the client tries again."""
        if not execution.cancelled:
            self._send({"op": "result", "id": execution.id, "status": "sandbox_error", "reason": reason})

    def _kernel_killed(self) -> bool:
        """Has the kernel killed any process for want of memory since this was last asked?"""
        before, self._kernel_kills = self._kernel_kills, _out_of_memory_kills()
        return self._kernel_kills > before

    # Zygotes

    @property
    def _pools_at_rest(self) -> list[Pool]:
        """Those whose workers have time: under full load there is none that is not somebody else's."""
        if len(self._running) == self._settings.workers:
            return []
        return [pool for pool in self._pools if not self._queue.waiting(pool.kind)]

    def _start_pools(self, kind: str) -> None:
        """A zygote forks one child at a time, so many cores need several of them."""
        workers, cores = self._settings.workers, _cores()
        make = ZygoteProcess if linux.IS_LINUX else FreshInterpreters
        count = max(1, min(workers, cores) // _CORES_PER_ZYGOTE)
        for _ in range(count):
            spare = -(-min(workers, cores) // count)
            slots = -(-workers // count) + spare
            if kind == _SESSION_KIND:
                slots += -(-self._settings.sessions // count)
            self._pools.append(make(kind, slots, spare, self._selector, self))

    def pool_ready(self, pool: Pool, isolation: dict[str, Any]) -> None:
        if not self._greeted:
            self._greeted = True
            self._send({"op": "hello", "isolation": isolation | {"fixed_addresses": self._fixed_addresses}})

    def pool_died(self, pool: Pool) -> None:
        """Fail what it ran, and start another if that is still wanted."""
        self._pools.remove(pool)
        running = pool.running
        pool.end(time.monotonic())
        for worker in running:
            del self._running[worker.execution.id]
            self._fail(worker.execution, "the process that ran the code was lost")
        if not self._greeted:
            self._stop()  # the client sees that it gets no greeting, and says so
        elif pool.proven and not pool.failure:
            self._pools.append(pool.successor())
        elif not any(other.kind == pool.kind for other in self._pools):
            for execution in self._queue.take_all(pool.kind):
                self._fail(execution, pool.failure or f"the {pool.kind} interpreter ended while it was starting")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if linux.IS_LINUX else os.cpu_count() or 1


def _exit_code(verdict: Verdict, status: int) -> int:
    """What Python itself would have ended with: 1 after an exception, minus the signal that killed it."""
    code = os.waitstatus_to_exitcode(status)
    return 1 if code > 0 and verdict.status in ("error", "memory_limit") else code


def _out_of_memory_kills() -> int:
    """How many processes the kernel has killed for want of memory since it was started; 0 where it does not say."""
    try:
        with open("/proc/vmstat") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)
    except FileNotFoundError:
        return 0


def main() -> None:
    wanted, limit = Settings(**json.loads(sys.argv[1])), open_files.lift_limit()
    settings = wanted.within(limit, _cores())
    if settings.workers < wanted.workers:  # fewer sessions only wait for each other
        print(
            f"the sandbox runs {settings.workers} executions and {settings.sessions} sessions at once, not "
            f"{wanted.workers} and {wanted.sessions}: this system permits a process {limit} open files (ulimit -Hn)",
            file=sys.stderr,
        )
    Supervisor(socket.socket(fileno=os.dup(_CLIENT)), settings).serve()
