"""Whatever dies, the sandbox heals or says so, and leaves no process and no descriptor behind."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from conftest import SHORT, descendants, open_descriptors
from retool.errors import RetoolError
from retool.sandbox import Limits, Sandbox, SandboxConfig

LOOP = "while True: pass"


@pytest.fixture
def fresh() -> Iterator[Sandbox]:
    with Sandbox(SHORT) as sandbox:
        yield sandbox


def own_descendants(box: Sandbox) -> set[int]:
    supervisor = box._connection._process.pid
    return descendants(supervisor) | {supervisor}


def zygotes(box: Sandbox) -> list[int]:
    supervisor = box._connection._process.pid
    return [pid for pid in descendants(supervisor) if parent_of(pid) == supervisor]


def parent_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[1])


def exists(pid: int) -> bool:
    """Whether `pid` still runs; one that has ended and waits to be collected by process 1 does not."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def expect_to_be_closed(box: Sandbox) -> None:
    with pytest.raises(RetoolError, match="closed"):
        box.run_blocking(LOOP)


def test_closing_ends_every_process_and_closes_every_descriptor() -> None:
    gc.collect()
    before, threads = open_descriptors(), threading.active_count()
    for _ in range(3):
        with Sandbox(SHORT) as box:
            box.run_blocking("import numpy")
            running = threading.Thread(target=expect_to_be_closed, args=(box,))
            running.start()
            time.sleep(0.05)
            started = own_descendants(box)
        running.join()
        assert not any(exists(pid) for pid in started)
    assert (open_descriptors(), threading.active_count()) == (before, threads)


def test_a_call_that_is_under_way_when_the_sandbox_is_closed_says_so() -> None:
    box = Sandbox(SHORT)

    async def run() -> None:
        call = asyncio.create_task(box.run(LOOP, Limits(cpu_seconds=60.0)))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(box.close)
        await call

    with pytest.raises(RetoolError, match="closed while code was running"):
        asyncio.run(run())


def test_a_closed_sandbox_starts_again_when_it_is_used() -> None:
    box = Sandbox(SHORT)
    assert box.run_blocking("print(1)").text == "1"
    box.close()
    assert box.run_blocking("print(2)").text == "2"
    box.close()
    box.close()


@pytest.fixture
def restless_threads() -> Iterator[None]:
    """Threads take turns so often that what is not guarded between them shows."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("restless_threads")
@pytest.mark.parametrize("victim", ["zygote", *["supervisor"] * 5])
def test_calls_survive_the_death_of(fresh: Sandbox, victim: str) -> None:
    async def run() -> list[str]:
        calls = [asyncio.create_task(fresh.run(f"sum(range(10 ** 5))\nprint({n})")) for n in range(60)]
        await calls[3]
        pids = zygotes(fresh) if victim == "zygote" else [fresh._connection._process.pid]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return [result.text for result in await asyncio.gather(*calls)]

    fresh.start()
    before = own_descendants(fresh)
    assert asyncio.run(run()) == [str(n) for n in range(60)]
    if victim == "supervisor":
        assert eventually(lambda: not any(exists(pid) for pid in before))


def test_a_sandbox_that_keeps_dying_is_reported_as_its_own_failure(fresh: Sandbox) -> None:
    stop = threading.Event()

    def kill() -> None:
        while not stop.is_set():
            for pid in zygotes(fresh):
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        result = fresh.run_blocking("import time; time.sleep(0.4)")
    finally:
        stop.set()
        killer.join()
    assert result.status == "sandbox_error"
    assert result.text
    assert fresh.run_blocking("print(1)").text == "1"


def test_the_death_of_a_child_is_its_own_affair(fresh: Sandbox) -> None:
    async def run() -> str:
        call = asyncio.create_task(fresh.run("import time; time.sleep(0.4)"))
        await asyncio.sleep(0.2)
        for child in own_descendants(fresh) - {*zygotes(fresh), fresh._connection._process.pid}:
            os.kill(child, signal.SIGKILL)  # the one that runs, and those that wait for their turn
        return (await call).status

    fresh.start()
    assert asyncio.run(run()) == "signal"
    assert fresh.run_blocking("print(1)").text == "1"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_the_client(number: int) -> None:
    program = f"""
import os, threading, time
from retool.sandbox import Sandbox, Limits
box = Sandbox()
box.start()
threading.Thread(target=box.run_blocking, args=({LOOP!r}, Limits(cpu_seconds=60.0)), daemon=True).start()
time.sleep(0.3)
if os.fork() == 0:          # a fork of the trainer, say a data loader, holds copies of its descriptors
    time.sleep(3)
    os._exit(0)
print(box._connection._process.pid, flush=True)
time.sleep(60)
"""
    client = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    supervisor = int(client.stdout.readline())
    started = descendants(supervisor) | {supervisor}
    assert len(started) >= 3
    client.send_signal(number)
    client.wait()
    client.stdout.close()
    assert eventually(lambda: not any(exists(pid) for pid in started), seconds=2.0)


def test_a_fork_of_the_client_is_told_to_make_its_own(fresh: Sandbox) -> None:
    fresh.start()
    fresh._owner = -1
    with pytest.raises(RetoolError, match="fork"):
        fresh.run_blocking("print(1)")
    fresh._owner = os.getpid()


def test_thousands_of_executions_leak_nothing() -> None:
    with Sandbox(SandboxConfig(workers=2)) as box:

        async def run(calls: int) -> None:
            await asyncio.gather(*(box.run("print(1)") for _ in range(calls)))

        asyncio.run(run(50))
        watched = [os.getpid(), box._connection._process.pid, *zygotes(box)]
        assert eventually(lambda: len(own_descendants(box)) == 4)  # supervisor, zygote, two children in waiting
        before = [open_descriptors(pid) for pid in watched]
        asyncio.run(run(500))
        assert eventually(lambda: len(own_descendants(box)) == 4)
        assert [open_descriptors(pid) for pid in watched] == before
