"""Many calls at once, from any thread and any event loop; each gets its own answer, the same one every time."""

import asyncio
import threading
import time

import pytest

from retool.errors import RetoolError
from retool.sandbox import Limits, Sandbox, SandboxConfig, describe_isolation


def test_every_call_gets_its_own_answer(box: Sandbox) -> None:
    async def run() -> list[str]:
        results = await asyncio.gather(*(box.run(f"print({number} ** 2)") for number in range(200)))
        return [result.text for result in results]

    assert asyncio.run(run()) == [str(number**2) for number in range(200)]


def test_a_sandbox_serves_one_event_loop_after_another_and_threads(box: Sandbox) -> None:
    for number in range(3):
        assert asyncio.run(box.run(f"print({number})")).text == str(number)
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(box.run_blocking("print(1)").text)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["1"] * 8


def test_the_event_loop_goes_on_while_code_runs(box: Sandbox) -> None:
    async def run() -> float:
        longest, last = 0.0, time.perf_counter()
        calls = asyncio.gather(*(box.run("x = sum(range(10 ** 6))") for _ in range(8)))
        while not calls.done():
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
        return longest

    assert asyncio.run(run()) < 0.2


def test_honest_code_is_not_timed_out_because_others_loop(box: Sandbox) -> None:
    """Both workers compete for CPUs with loops that run into their limit; time is judged on the CPU clock."""
    limits = Limits(cpu_seconds=0.4, idle_seconds=0.4)
    honest = "import time\nwhile time.process_time() < 0.1: pass\nprint('done')"

    async def run() -> list[str]:
        calls = [box.run("while True: pass" if n % 4 == 0 else honest, limits) for n in range(16)]
        return [result.status for result in await asyncio.gather(*calls)]

    assert asyncio.run(run()) == (["time_limit"] + ["ok"] * 3) * 4


def test_a_cancelled_call_is_killed_and_makes_room(box: Sandbox) -> None:
    async def run() -> float:
        forever = Limits(cpu_seconds=60.0)
        calls = [asyncio.create_task(box.run("while True: pass", forever)) for _ in range(200)]
        await asyncio.sleep(0.2)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        start = time.perf_counter()
        assert (await box.run("print(1)")).text == "1"
        return time.perf_counter() - start

    assert asyncio.run(run()) < 2.0


def test_a_long_program_arrives_whole(box: Sandbox) -> None:
    code = "x = '" + "y" * 3_000_000 + "'\nprint(len(x))"
    assert box.run_blocking(code).text == "3000000"


def test_a_long_program_may_end_before_it_is_read_to_the_end(box: Sandbox) -> None:
    code = "x = '" + "y" * 24_000_000 + "'"
    assert box.run_blocking(code, Limits(memory_mib=16)).status == "memory_limit"


def test_the_isolation_in_force_is_recorded(box: Sandbox) -> None:
    assert box.isolation["weak"] is None
    assert box.isolation["refused"] == ["files", "network", "processes", "signals"]
    assert "seccomp" in describe_isolation(box.isolation)
    assert "WEAK: no" in describe_isolation(box.isolation | {"weak": "no walls"})


def test_a_system_that_cannot_contain_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from retool.sandbox import connection

    weak = {"weak": "code could reach files", "platform": "test"}
    original = connection.Connection.__init__

    def start(self: connection.Connection, workers: int) -> None:
        original(self, workers)
        self.isolation |= weak

    monkeypatch.setattr(connection.Connection, "__init__", start)
    with pytest.raises(RetoolError, match=r"sandbox\.allow_weak=true"):
        Sandbox().start()
    with pytest.warns(RuntimeWarning, match="weak sandbox"), Sandbox(SandboxConfig(allow_weak=True)) as box:
        assert box.run_blocking("print(1)").text == "1"


def test_code_that_needs_no_numpy_does_not_wait_for_it() -> None:
    with Sandbox(SandboxConfig(workers=1)) as box:

        async def run() -> list[str]:
            finished: list[str] = []

            async def call(name: str, code: str) -> None:
                await box.run(code)
                finished.append(name)

            await asyncio.gather(call("numpy", "import numpy"), call("light", "import math"))
            return finished

        assert asyncio.run(run()) == ["light", "numpy"]
