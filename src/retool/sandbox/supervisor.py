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
from collections import deque
from typing import Any

from retool.sandbox import linux, wire
from retool.sandbox.execution import Execution, Verdict
from retool.sandbox.preload import kind_of

_CLIENT = 0
_CHUNK_BYTES = 1 << 18
_WORKERS_PER_ZYGOTE = 8
_SHUTDOWN_SECONDS = 2.0
_CANCELLED = Verdict("cancelled")  # told to nobody
_ZYGOTE_COMMAND = "from retool.sandbox.zygote import main; main()"


class ZygoteProcess:
    """A zygote of one `kind`, and the executions that it runs. It takes some once it has said that it is ready."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.ready = False
        self.running: dict[int, Execution] = {}
        self.decoder = wire.Decoder()
        self.socket, far_end = socket.socketpair()
        arguments = [sys.executable, "-P", "-c", _ZYGOTE_COMMAND, kind, str(os.getpid())]
        standard_input = (os.POSIX_SPAWN_DUP2, far_end.fileno(), 0)
        with far_end:
            self.pid = os.posix_spawn(sys.executable, arguments, os.environ, file_actions=[standard_input])

    def spawn(self, execution: Execution, selector: selectors.BaseSelector) -> None:
        """Have `execution` forked. Raises OSError."""
        ends = execution.open_pipes(selector)
        limits = execution.limits
        message = {
            "op": "spawn",
            "id": execution.id,
            "cpu_seconds": limits["cpu_seconds"],
            "memory_mib": limits["memory_mib"],
        }
        self.running[execution.id] = execution
        try:
            socket.send_fds(self.socket, [wire.encode(message)], ends)
        finally:
            for end in ends:
                os.close(end)

    def kill(self, execution: Execution, verdict: Verdict) -> None:
        """Have `execution` killed; `verdict` is what it will be told, should it not have ended by itself before."""
        execution.kill_verdict = verdict
        execution.next_check = float("inf")
        try:
            self.socket.send(wire.encode({"op": "kill", "id": execution.id}))
        except OSError:
            return  # the zygote is gone, and its children with it; the selector is about to say so


class Supervisor:
    """Serves one client over the connected stream socket `client`."""

    def __init__(self, client: socket.socket, workers: int) -> None:
        self._client = client
        self._workers = workers
        self._decoder = wire.Decoder()
        self._outbox = bytearray()
        self._selector = selectors.DefaultSelector()
        self._queues: dict[str, deque[Execution]] = {}
        self._queued: dict[int, Execution] = {}
        self._zygotes: list[ZygoteProcess] = []
        self._fixed_addresses = linux.IS_LINUX and linux.fix_addresses()
        self._greeted = False
        self._serving = True
        self._kernel_kills = _out_of_memory_kills()

    def serve(self) -> None:
        self._client.setblocking(False)
        self._selector.register(self._client, selectors.EVENT_READ, self._receive)
        self._stop_when_client_dies()
        self._start_zygotes("light")
        while self._serving:
            for key, _ in self._selector.select(self._seconds_to_next_check()):
                key.data()
            self._check_clocks()
            self._dispatch()
            self._flush()
        self._shut_down()

    # The client

    def _receive(self) -> None:
        self._flush()
        try:
            data = self._client.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self._serving = False
            return
        for message in self._decoder.feed(data):
            if message["op"] == "run":
                self._enqueue(Execution(message))
            else:
                self._cancel(message["id"])

    def _stop_when_client_dies(self) -> None:
        """A fork of the client may hold the other end of the socket open, so its end of life is watched as well."""
        if hasattr(os, "pidfd_open"):
            client = os.pidfd_open(os.getppid())
            self._selector.register(client, selectors.EVENT_READ, self._stop)

    def _stop(self) -> None:
        self._serving = False

    def _send(self, message: dict[str, Any]) -> None:
        self._outbox += wire.encode(message)

    def _flush(self) -> None:
        try:
            while self._outbox:
                del self._outbox[: self._client.send(self._outbox)]
        except BlockingIOError:
            interest = selectors.EVENT_READ | selectors.EVENT_WRITE
        except (BrokenPipeError, ConnectionResetError):
            self._outbox.clear()
            self._serving = False
            return
        else:
            interest = selectors.EVENT_READ
        if self._selector.get_key(self._client).events != interest:
            self._selector.modify(self._client, interest, self._receive)

    # The queue

    def _enqueue(self, execution: Execution) -> None:
        kind = kind_of(execution.code)
        self._queues.setdefault(kind, deque()).append(execution)
        self._queued[execution.id] = execution
        if not any(zygote.kind == kind for zygote in self._zygotes):
            self._start_zygotes(kind)

    def _cancel(self, execution_id: int) -> None:
        if queued := self._queued.pop(execution_id, None):
            queued.cancelled = True
        for zygote in self._zygotes:
            if running := zygote.running.get(execution_id):
                running.cancelled = True
                zygote.kill(running, _CANCELLED)

    def _dispatch(self) -> None:
        """Start queued executions, oldest first, on zygotes that are ready, while there are free workers."""
        while sum(len(zygote.running) for zygote in self._zygotes) < self._workers:
            for queue in self._queues.values():
                while queue and queue[0].cancelled:
                    queue.popleft()
            candidates = [(self._queues[z.kind][0].queued_at, len(z.running), z) for z in self._idle_zygotes()]
            if not candidates:
                return
            zygote = min(candidates, key=lambda candidate: candidate[:2])[2]
            self._start(self._queues[zygote.kind].popleft(), zygote)

    def _idle_zygotes(self) -> list[ZygoteProcess]:
        return [zygote for zygote in self._zygotes if zygote.ready and self._queues.get(zygote.kind)]

    def _start(self, execution: Execution, zygote: ZygoteProcess) -> None:
        self._queued.pop(execution.id, None)
        try:
            zygote.spawn(execution, self._selector)
        except OSError as error:
            zygote.running.pop(execution.id, None)
            execution.abandon()
            self._fail(execution, f"the execution could not be started: {error.strerror}")

    # Clocks and verdicts

    def _running(self) -> list[tuple[ZygoteProcess, Execution]]:
        return [(zygote, execution) for zygote in self._zygotes for execution in zygote.running.values()]

    def _seconds_to_next_check(self) -> float | None:
        first = min((execution.next_check for _, execution in self._running()), default=float("inf"))
        return None if first == float("inf") else max(0.0, first - time.monotonic())

    def _check_clocks(self) -> None:
        now = time.monotonic()
        for zygote, execution in self._running():
            if execution.next_check <= now and (verdict := execution.check(now)):
                zygote.kill(execution, verdict)

    def _finish(self, execution: Execution, account: dict[str, Any]) -> None:
        """Answer the client with the verdict from the zygote's `account` of how the child ended."""
        ended_at = time.monotonic()
        killed = os.WIFSIGNALED(account["status"]) and os.WTERMSIG(account["status"]) == signal.SIGKILL
        verdict = execution.finish(account["status"], account["cpu_s"], killed and self._kernel_killed())
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
                "exit_code": _exit_code(verdict, account["status"]),
                "cpu_s": account["cpu_s"],
                "wall_s": ended_at - execution.started_at,
                "queue_s": execution.started_at - execution.queued_at,
                "peak_bytes": account["peak_bytes"],
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

    def _start_zygotes(self, kind: str) -> None:
        for _ in range(max(1, self._workers // _WORKERS_PER_ZYGOTE)):
            self._start_zygote(kind)

    def _start_zygote(self, kind: str) -> None:
        zygote = ZygoteProcess(kind)
        zygote.socket.setblocking(False)
        self._selector.register(zygote.socket, selectors.EVENT_READ, lambda: self._hear(zygote))
        self._zygotes.append(zygote)

    def _hear(self, zygote: ZygoteProcess) -> None:
        try:
            data = zygote.socket.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self._bury(zygote)
            return
        for message in zygote.decoder.feed(data):
            op = message["op"]
            if op == "ready":
                zygote.ready = True
                self._greet(message["isolation"])
            elif op == "spawned":
                zygote.running[message["id"]].started(message["pid"])
            elif op == "exited":
                self._finish(zygote.running.pop(message["id"]), message)
            else:
                execution = zygote.running.pop(message["id"])
                execution.abandon()
                self._fail(execution, message["reason"])

    def _greet(self, isolation: dict[str, Any]) -> None:
        if not self._greeted:
            self._greeted = True
            self._send({"op": "hello", "isolation": isolation | {"fixed_addresses": self._fixed_addresses}})

    def _bury(self, zygote: ZygoteProcess) -> None:
        """A zygote has died: fail what it ran, and start another if that is still wanted."""
        self._zygotes.remove(zygote)
        self._selector.unregister(zygote.socket)
        zygote.socket.close()
        os.kill(zygote.pid, signal.SIGKILL)
        os.waitpid(zygote.pid, 0)
        for execution in zygote.running.values():
            execution.abandon()
            self._fail(execution, "the process that ran the code was lost")
        if not self._greeted:
            self._serving = False  # the client sees that it gets no greeting, and says so
        elif zygote.ready:
            self._start_zygote(zygote.kind)
        elif not any(other.kind == zygote.kind for other in self._zygotes):
            queue = self._queues.pop(zygote.kind, deque())
            for execution in queue:
                self._queued.pop(execution.id, None)
                self._fail(execution, f"the {zygote.kind} interpreter ended while it was starting")

    def _shut_down(self) -> None:
        """End all zygotes; each kills its children and waits for them. One that does not is killed."""
        for zygote in self._zygotes:
            zygote.socket.close()
        deadline = time.monotonic() + _SHUTDOWN_SECONDS
        for zygote in self._zygotes:
            while os.waitpid(zygote.pid, os.WNOHANG)[0] == 0:
                if time.monotonic() > deadline:
                    os.kill(zygote.pid, signal.SIGKILL)
                    os.waitpid(zygote.pid, 0)
                    break
                time.sleep(0.002)


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
    settings = json.loads(sys.argv[1])
    client = socket.socket(fileno=os.dup(_CLIENT))
    Supervisor(client, settings["workers"]).serve()
