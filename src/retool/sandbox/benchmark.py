"""How fast a sandbox is, next to a fresh interpreter for each piece of code. Both use all cores."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import NamedTuple

from retool.errors import RetoolError
from retool.sandbox.client import Sandbox

SNIPPETS = {
    "trivial": "print(sum(range(10)))",
    "sympy": (
        "from sympy import integrate, sin, solve, symbols\n"
        "x = symbols('x')\n"
        "print(solve(x**3 - 6*x**2 + 11*x - 6, x), integrate(x * sin(x), x))"
    ),
}

_CALLS = {"trivial": 400, "sympy": 60}
_FRESH_CALLS = {"trivial": 60, "sympy": 4}
_UNLOADED_CALLS = {"trivial": 150, "sympy": 20}
_CONCURRENCY = 64
_WARM_UP_CALLS = 8


class Speed(NamedTuple):
    """Medians over the rounds: executions per second, and milliseconds of a call when nothing else runs."""

    snippet: str
    per_second: float
    fresh_per_second: float
    unloaded_ms: float

    @property
    def ratio(self) -> float:
        return self.per_second / self.fresh_per_second


def measure(box: Sandbox, rounds: int) -> list[Speed]:
    """The speed of `box` and of fresh interpreters on each snippet, in turns. Raises RetoolError if code fails."""
    for code in SNIPPETS.values():
        throughput(box, code, _WARM_UP_CALLS, _WARM_UP_CALLS)
    measured: dict[str, list[tuple[float, float, float]]] = {name: [] for name in SNIPPETS}
    for _ in range(rounds):
        for name, code in SNIPPETS.items():
            fresh = fresh_throughput(code, _FRESH_CALLS[name])
            loaded = throughput(box, code, _CALLS[name], _CONCURRENCY)
            measured[name].append((loaded, fresh, latency_ms(box, code, _UNLOADED_CALLS[name])))
    return [Speed(name, *(median(column) for column in zip(*rows, strict=True))) for name, rows in measured.items()]


def throughput(box: Sandbox, code: str, calls: int, concurrency: int) -> float:
    """Executions per second of `code` with `concurrency` calls under way."""

    async def run() -> float:
        turn = asyncio.Semaphore(concurrency)

        async def call() -> None:
            async with turn:
                _check((await box.run(code)).text)

        started = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(calls)))
        return calls / (time.perf_counter() - started)

    return asyncio.run(run())


def latency_ms(box: Sandbox, code: str, calls: int) -> float:
    """Median milliseconds of a call, one after another."""

    async def run() -> float:
        taken = []
        for _ in range(calls):
            started = time.perf_counter()
            await box.run(code)
            taken.append(time.perf_counter() - started)
        return 1000 * median(taken)

    return asyncio.run(run())


def fresh_throughput(code: str, calls: int) -> float:
    """Executions per second by `python -c`, as many at once as there are cores."""
    return threaded_throughput(lambda: _fresh(code), calls, len(os.sched_getaffinity(0)))


def threaded_throughput(call: Callable[[], str], calls: int, threads: int) -> float:
    """Calls per second of `call`, which returns what was printed, from `threads` threads."""
    with ThreadPoolExecutor(threads) as pool:
        started = time.perf_counter()
        for text in pool.map(lambda _: call(), range(calls)):
            _check(text)
        return calls / (time.perf_counter() - started)


def _fresh(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def _check(printed: str) -> None:
    if printed.strip() not in ("45", "[1, 2, 3] -x*cos(x) + sin(x)"):
        raise RetoolError(f"the benchmark's code printed {printed!r}")
