"""Rollouts on one and two samplers next to the simulation, and what the simulation says of larger systems.

    python benchmarks/scaling.py [--trajectories DIR] [--batches 3] [--batch 512]
    python benchmarks/scaling.py --simulate [SWEEP ...]    # half an hour; results/scaling.json
    python benchmarks/scaling.py --draw                    # docs/scaling-*.png from it
    python benchmarks/scaling.py --published               # the roofline next to published speeds
    python benchmarks/scaling.py --placements              # seconds of a step of the 32B preset, as Markdown
    python benchmarks/scaling.py --agent                   # what a token costs its agent loop

SimPy is needed (`pip install simpy`). Samplers are processes with one thread each, on the nano preset's model; calls
take 0.5 s. The last line of a measurement is a JSON object:
    samplers                  how many processes sampled
    trajectories_per_second   of all of them together
    efficiency                over as many times the speed of one
    simulated                 trajectories per second that the simulation expects, from a calibration of one process
    async_speedup             one sampler without a pause between batches over the same with one
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from scaling import agent_cost, measured, plots, roofline, sweeps
from scaling.simulation import System, simulate
from scaling.workload import Turn, Turns, recorded, repeated

RESULTS = Path(__file__).parent / "results" / "scaling.json"
DOCS = Path(__file__).parent.parent / "docs"
LENGTHS = Path(__file__).parent / "scaling" / "turns.json"
SAMPLERS = (1, 2)
TOOL_SECONDS = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trajectories", type=Path, help="folder of trajectories whose lengths are taken")
    parser.add_argument("--batches", type=int, default=3, help="how many batches, one after the other (default 3)")
    parser.add_argument("--batch", type=int, default=512, help="trajectories of a batch (default 512)")
    parser.add_argument("--simulate", nargs="*", choices=sweeps.SWEEPS, help="run these sweeps (none: all)")
    parser.add_argument("--draw", action="store_true", help="draw the kept results of the sweeps")
    parser.add_argument("--published", action="store_true", help="compare the roofline with published speeds")
    parser.add_argument("--placements", action="store_true", help="expected seconds of the 32B preset's step")
    parser.add_argument("--agent", action="store_true", help="measure what a token costs its agent loop")
    options = parser.parse_args()
    if options.published:
        print("\n".join(roofline.comparison_lines()))
    elif options.placements:
        print("\n".join(roofline.placements()))
    elif options.agent:
        agent, event = agent_cost.agent_seconds(), agent_cost.event_seconds()
        figures = {"agent_us": 1e6 * agent, "event_us": 1e6 * event, "tokens_per_second": 1 / (agent + event)}
        print(json.dumps({name: round(value, 1) for name, value in figures.items()}))
    elif options.simulate is not None:
        simulate_all(options.simulate or list(sweeps.SWEEPS))
    elif options.draw:
        for path in plots.draw(json.loads(RESULTS.read_text()), DOCS):
            print(path)
    else:
        turns = read_turns(options.trajectories)
        batches = [repeated(turns, options.batch, seed) for seed in range(options.batches)]
        print(f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f} before anything was measured", flush=True)
        step, read = measured.calibrate(turns)
        print(f"a step takes {1e3 * step.overhead:.2f} ms and {1e3 * step.row_seconds:.3f} ms a row", flush=True)
        figures = measure(batches, step, read)
        unbroken = sum(map(len, batches)) / measured.measure(1, [[each for batch in batches for each in batch]])
        speedup = unbroken / figures["trajectories_per_second"][0]
        rounded = {name: [round(value, 3) for value in values] for name, values in figures.items()}
        print(json.dumps({"samplers": list(SAMPLERS)} | rounded | {"async_speedup": round(speedup, 3)}))


def simulate_all(names: list[str]) -> None:
    """Run sweeps and keep their rows beside those of others."""
    for name in names:
        rows = []
        for row in sweeps.SWEEPS[name]():
            rows.append(row)
            print(name, json.dumps(row), flush=True)
        kept = (json.loads(RESULTS.read_text()) if RESULTS.exists() else {}) | {name: rows}
        parts = [f' "{key}": [\n' + ",\n".join(f"  {json.dumps(row)}" for row in kept[key]) + "\n ]" for key in kept]
        RESULTS.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def measure(batches: list[list[Turns]], step: measured.MeasuredStep, read: float) -> dict[str, list[float]]:
    """Samplers of one thread on their own, and what is expected of them."""
    count, batch = sum(map(len, batches)), len(batches[0])
    speeds, expected = [], []
    for samplers in SAMPLERS:
        speeds.append(count / measured.measure(samplers, batches))
        system = System(samplers, measured.ROWS, step, read, batch, workers=1 << 20)
        expected.append(count / sum(simulate(system, turns, 1).seconds for turns in batches))
        print(f"{samplers} samplers: {speeds[-1]:.1f} trajectories/s, simulated {expected[-1]:.1f}", flush=True)
    efficiency = [speed / speeds[0] / samplers for speed, samplers in zip(speeds, SAMPLERS, strict=True)]
    return {"trajectories_per_second": speeds, "efficiency": efficiency, "simulated": expected}


def read_turns(folder: Path | None) -> list[Turns]:
    """Turns of a folder's trajectories, or those that are kept beside this file; each call takes `TOOL_SECONDS`."""
    if folder is not None:
        return list(recorded(sorted(folder.glob("*.jsonl")), TOOL_SECONDS))
    kept = json.loads(LENGTHS.read_text())
    return [
        tuple(Turn(*lengths, TOOL_SECONDS if number + 1 < len(each) else None) for number, lengths in enumerate(each))
        for each in kept
    ]


if __name__ == "__main__":
    main()
