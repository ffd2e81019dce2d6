"""Whatever dies, the sandbox heals or says so, and leaves no process and no descriptor behind."""

import asyncio
import gc
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import (
    descendants,
    eventually,
    exists,
    is_at_rest,
    open_descriptors,
    own_descendants,
    resident_bytes,
    supervisor_of,
    zygotes_of,
)
from profiles import FEW_OPEN_FILES

from conftest import SHORT, sandbox_in
from retool.errors import RetoolError
from retool.sandbox import Limits, Sandbox, SandboxConfig
from retool.sandbox.supervision import supervisor

LOOP = "while True: pass"


@pytest.fixture
def fresh() -> Iterator[Sandbox]:
    with Sandbox(SHORT) as sandbox:
        yield sandbox


def expect_to_be_closed(box: Sandbox) -> None:
    with pytest.raises(RetoolError, match="closed"):
        box.run_blocking(LOOP)


def test_closing_ends_every_process_and_closes_every_descriptor() -> None:
    gc.collect()
    before, threads = open_descriptors(), threading.active_count()
    for library in ("math", "numpy"):
        with Sandbox(SHORT) as box:
            box.run_blocking(f"import {library}")
            running = threading.Thread(target=expect_to_be_closed, args=(box,))
            running.start()
            time.sleep(0.05)
            started = own_descendants(box)
        running.join()
        assert not any(exists(pid) for pid in started)
    assert (open_descriptors(), threading.active_count()) == (before, threads)


def test_where_few_files_may_be_open_less_runs_at_once_and_it_says_so(capfd: pytest.CaptureFixture) -> None:
    many = SHORT.model_copy(update={"workers": 40})

    async def at_once(box: Sandbox) -> set[str]:
        codes = [f"import {library}; print(1)" for library in ("time", "numpy")] * 20
        results = await asyncio.gather(*(box.run(code) for code in codes))
        async with box.session() as session:
            return {result.text for result in (*results, await session.run("print(1)"))}

    with sandbox_in(FEW_OPEN_FILES, many) as box:
        assert asyncio.run(at_once(box)) == {"1"}
    assert "not 40 and 64: this system permits a process 100 open files (ulimit -Hn)" in capfd.readouterr().err


@given(
    st.builds(supervisor.Settings, st.integers(1, 5000), st.integers(1, 500), st.just(1.0)),
    st.integers(100, 1 << 16),
    st.integers(1, 256),
)
def test_what_runs_at_once_finds_enough_descriptors(wanted: supervisor.Settings, open_files: int, cores: int) -> None:
    settings = wanted.within(open_files, cores)
    ready = 3 * min(settings.workers, cores)
    needed = 24 + 6 * (settings.workers + ready) + 10 * settings.sessions
    assert needed <= open_files
    assert 1 <= settings.workers <= wanted.workers
    assert 1 <= settings.sessions <= wanted.sessions
    if open_files == 1 << 16 and wanted.workers <= 1000 and cores <= 128:
        assert settings == wanted


def test_a_sandbox_can_be_closed_at_any_moment_of_its_start() -> None:
    for milliseconds in range(20):
        box = Sandbox(SHORT)
        box.start()
        time.sleep(milliseconds / 1000)
        started = time.monotonic()
        box.close()
        assert time.monotonic() - started < 1.5


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
@pytest.mark.parametrize("victim", ["zygote", *["supervisor"] * 3])
def test_calls_survive_the_death_of(fresh: Sandbox, victim: str) -> None:
    async def run() -> list[str]:
        calls = [asyncio.create_task(fresh.run(f"sum(range(10 ** 5))\nprint({n})")) for n in range(60)]
        await calls[3]
        pids = zygotes_of(fresh) if victim == "zygote" else [supervisor_of(fresh)]
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
            for pid in zygotes_of(fresh):
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
        for child in own_descendants(fresh) - {*zygotes_of(fresh), supervisor_of(fresh)}:
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
    started = {supervisor, *descendants(supervisor)}
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


def test_a_thousand_calls_at_once_are_all_answered_and_leak_nothing() -> None:
    with Sandbox(SandboxConfig(workers=2)) as box:

        async def run(calls: int) -> set[str]:
            return {result.text for result in await asyncio.gather(*(box.run("print(1)") for _ in range(calls)))}

        asyncio.run(run(20))
        assert eventually(lambda: is_at_rest(box))
        watched = [os.getpid(), supervisor_of(box), *zygotes_of(box)]
        before = [open_descriptors(pid) for pid in watched]
        assert asyncio.run(run(1000)) == {"1"}
        assert eventually(lambda: is_at_rest(box))
        assert [open_descriptors(pid) for pid in watched] == before


def test_a_thousand_waiting_calls_are_cancelled_at_once_and_the_next_one_is_served(fresh: Sandbox) -> None:
    async def run() -> str:
        calls = [asyncio.create_task(fresh.run(LOOP, Limits(cpu_seconds=60.0))) for _ in range(1000)]
        await asyncio.sleep(0.3)
        for call in calls:
            call.cancel()
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended)
        return (await fresh.run("print(1)")).text

    fresh.start()
    assert asyncio.run(run()) == "1"
    assert eventually(lambda: is_at_rest(fresh))


def test_a_stopped_child_costs_its_own_time_only(fresh: Sandbox) -> None:
    async def run() -> list[str]:
        stopped = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"
        results = await asyncio.gather(fresh.run(stopped), *(fresh.run(f"print({n})") for n in range(8)))
        return [result.status for result in results]

    assert asyncio.run(run()) == ["time_limit", *["ok"] * 8]


EXECUTIONS_IN_A_ROW = 100_000


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_long_row_of_executions_changes_neither_memory_nor_descriptors_nor_latency() -> None:
    tenth = EXECUTIONS_IN_A_ROW // 10
    with Sandbox(SandboxConfig(workers=2)) as box:
        for _ in range(200):
            box.run_blocking("print(1)")
        assert eventually(lambda: is_at_rest(box))
        watched = [supervisor_of(box), *zygotes_of(box)]
        before = [(open_descriptors(pid), resident_bytes(pid)) for pid in watched]
        own = open_descriptors()
        seconds = []
        for number in range(EXECUTIONS_IN_A_ROW):
            start = time.perf_counter()
            assert box.run_blocking(f"print({number})").text == str(number)
            seconds.append(time.perf_counter() - start)
        assert eventually(lambda: is_at_rest(box))
        assert [supervisor_of(box), *zygotes_of(box)] == watched
        assert open_descriptors() == own
        for pid, (descriptors, resident) in zip(watched, before, strict=True):
            assert open_descriptors(pid) == descriptors
            assert resident_bytes(pid) <= resident + (2 << 20)
        assert statistics.median(seconds[-tenth:]) <= 1.3 * statistics.median(seconds[:tenth])
