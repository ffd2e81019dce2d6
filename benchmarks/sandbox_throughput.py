"""The sandbox against a fresh `python -c`, and against a running SandboxFusion; all of it in one run, in turns.

    python benchmarks/sandbox_throughput.py [--rounds 5] [--peer-url http://127.0.0.1:8080]

Prints what is measured while it goes on, and as its last line a JSON object:
    trivial_vs_python, sympy_vs_python    executions per second at concurrency 64, over those of fresh interpreters
    trivial_p50_ms, sympy_p50_ms          median of one call at a time
    sympy_fork_vs_python                  forks of the same interpreter that only run SymPy's code, over fresh ones
    isolation_cost                        time of an execution at concurrency 8, over that with resource limits only
    live_children_mib                     proportional set size of all processes while 1,000 executions sleep
    false_timeouts                        honest code that was timed out next to infinite loops
    peer_trivial_vs_python, …             the same ratios for the peer
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from statistics import median

from retool.sandbox import Limits, Sandbox, SandboxConfig, benchmark, connection, describe_isolation

LIVE_CHILDREN = 1000
LOOPS, HONEST, HONEST_CPU_SECONDS, CPU_LIMIT_SECONDS = 20, 60, 0.4, 2.0

# A supervisor whose zygotes leave everything out but the resource limits.
LIMITS_ONLY = """
from retool.sandbox.supervision import zygote_process
zygote_process._COMMAND = '''
import sys
from retool.sandbox.interpreter import preload
preload.preload(sys.argv[1])
from retool.sandbox.containment import isolation, landlock, namespaces
from retool.sandbox.interpreter import zygote
def refuse(*_): raise OSError
namespaces.enter = lambda _: []
landlock.abi = lambda: 0
isolation._try_as_nobody = refuse
isolation._install_allowlist = lambda: False
zygote.main(int(sys.argv[2]), preload.sample(sys.argv[1]))
'''
from retool.sandbox.supervision.supervisor import main
main()
"""

# What a fork costs by itself: prepared as a zygote is, without protocol, limits, capture or isolation.
BARE_FORKS = """
import gc, os, sys, time
from retool.sandbox.containment import linux
from retool.sandbox.interpreter import memory, preload
preload.preload("scientific")
code, cores = compile(sys.argv[1], "code", "exec"), len(os.sched_getaffinity(0))
nowhere = os.open(os.devnull, os.O_WRONLY)
def reap():
    if os.wait()[1]:
        sys.exit("the code failed")
gc.disable()
gc.collect()
linux.collapse_heap()
gc.freeze()
memory.fill_gaps()
for line in sys.stdin:
    started = time.perf_counter()
    for call in range(int(line)):
        if call >= cores:
            reap()
        if not os.fork():
            os.dup2(nowhere, 1)
            gc.enable()
            exec(code, {"__name__": "__main__"})
            sys.stdout.flush()
            os._exit(0)
    for _ in range(min(cores, int(line))):
        reap()
    print(int(line) / (time.perf_counter() - started), flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of each comparison (default 5)")
    parser.add_argument("--peer-url", help="address of a running SandboxFusion")
    parser.add_argument("--allow-weak", action="store_true", help="measure where code cannot be contained, too")
    options = parser.parse_args()
    config = SandboxConfig(allow_weak=options.allow_weak)
    figures: dict[str, float] = {}
    with Sandbox(config) as box:
        say(describe_isolation(box.isolation))
        for speed in benchmark.measure(box, options.rounds):
            say(
                f"{speed.snippet}: {speed.per_second:.0f}/s, fresh python {speed.fresh_per_second:.1f}/s, "
                f"one at a time {speed.unloaded_ms:.2f} ms"
            )
            figures[f"{speed.snippet}_vs_python"] = speed.ratio
            figures[f"{speed.snippet}_p50_ms"] = speed.unloaded_ms
        if options.peer_url:
            figures |= peer(options.peer_url, options.rounds)
        figures["sympy_fork_vs_python"] = bare_forks(box, options.rounds)
        figures["isolation_cost"] = isolation_cost(box, options.rounds)
        figures["false_timeouts"] = false_timeouts(box)
    figures["live_children_mib"] = live_children_mib(config)
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def bare_forks(box: Sandbox, rounds: int) -> float:
    """In turns with fresh interpreters and with the sandbox, which this says too."""
    code, calls = benchmark.SNIPPETS["sympy"], 60
    fresh, bare, contained = [], [], []
    command = [sys.executable, "-c", BARE_FORKS, code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as forks:
        for round_ in range(-1, rounds):  # the first one warms up
            forks.stdin.write(f"{calls}\n")
            rate = float(forks.stdout.readline())
            if round_ >= 0:
                bare.append(rate)
                contained.append(benchmark.throughput(box, code, calls, 64))
                fresh.append(benchmark.fresh_throughput(code, 4))
        forks.stdin.close()
    say(f"sympy: bare forks {median(bare):.0f}/s, in the sandbox {median(contained):.0f}/s")
    return median(bare) / median(fresh)


def isolation_cost(box: Sandbox, rounds: int) -> float:
    """Needs no more than a few rounds: each is short, and the two alternate."""
    command, connection._SUPERVISOR_COMMAND = connection._SUPERVISOR_COMMAND, LIMITS_ONLY
    code, full, limits_only = benchmark.SNIPPETS["trivial"], [], []
    with Sandbox(SandboxConfig(allow_weak=True)) as open_box:
        connection._SUPERVISOR_COMMAND = command
        benchmark.throughput(open_box, code, 20, 8)
        for _ in range(2 * rounds):
            limits_only.append(benchmark.throughput(open_box, code, 200, 8))
            full.append(benchmark.throughput(box, code, 200, 8))
    say(f"concurrency 8: {median(full):.0f}/s, with resource limits only {median(limits_only):.0f}/s")
    return median(limits_only) / median(full)


def false_timeouts(box: Sandbox) -> int:
    honest = f"import time\nwhile time.process_time() < {HONEST_CPU_SECONDS}: pass\nprint('done')"
    limits = Limits(cpu_seconds=CPU_LIMIT_SECONDS, idle_seconds=CPU_LIMIT_SECONDS, wall_seconds=600)

    async def run() -> int:
        loops = [box.run("while True: pass", limits) for _ in range(LOOPS)]
        calls = [box.run(honest, limits) for _ in range(HONEST)]
        results = await asyncio.gather(*loops, *calls)
        wrong = [result.status for result in results[:LOOPS] if result.status != "time_limit"]
        if wrong:
            raise SystemExit(f"infinite loops ended with {wrong}")
        return sum(result.status != "ok" for result in results[LOOPS:])

    started, count = time.perf_counter(), asyncio.run(run())
    say(f"{LOOPS} loops and {HONEST} honest snippets: {count} timed out falsely, {time.perf_counter() - started:.0f} s")
    return count


def live_children_mib(config: SandboxConfig) -> float:
    many = config.model_copy(update={"workers": LIVE_CHILDREN, "idle_seconds": 600.0, "wall_seconds": 1200.0})
    with Sandbox(many) as box:

        async def run() -> float:
            code = "import time\ntime.sleep(600)"
            started = time.perf_counter()
            calls = [asyncio.create_task(box.run(code)) for _ in range(LIVE_CHILDREN)]
            while len(processes := descendants(os.getpid())) < LIVE_CHILDREN:
                await asyncio.sleep(0.5)
            await asyncio.sleep(5)  # the last ones reach their sleep
            mib = sum(map(proportional_set_mib, processes))
            say(f"{LIVE_CHILDREN} live children: {mib:.0f} MiB, all there after {time.perf_counter() - started:.0f} s")
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            return mib

        return asyncio.run(run())


def descendants(pid: int) -> list[int]:
    """The processes that `pid` and its descendants have started."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents.setdefault(parent, []).append(int(stat.parent.name))
    found, unseen = [], [pid]
    while unseen:
        children = parents.get(unseen.pop(), [])
        found += children
        unseen += children
    return found


def proportional_set_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def peer(url: str, rounds: int) -> dict[str, float]:
    figures = {}
    for name, code in benchmark.SNIPPETS.items():
        calls = {"trivial": 60, "sympy": 6}[name]
        body = json.dumps({"code": code, "language": "python"}).encode()

        def call(body: bytes = body) -> str:
            request = urllib.request.Request(f"{url}/run_code", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["run_result"]["stdout"]

        fresh, rates = [], []
        for _ in range(rounds):
            fresh.append(benchmark.fresh_throughput(code, calls))
            rates.append(benchmark.threaded_throughput(call, calls, 64))
        say(f"{name}: the peer {median(rates):.1f}/s, fresh python {median(fresh):.1f}/s")
        figures[f"peer_{name}_vs_python"] = median(rates) / median(fresh)
    return figures


if __name__ == "__main__":
    main()
