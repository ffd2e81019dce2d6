"""The questions that the simulation answers, each a list of rows: `python benchmarks/scaling.py --simulate`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from retool.cluster.advice import changed
from retool.config.schema import Config
from scaling.roofline import preset, system_of, workload_of
from scaling.simulation import simulate
from scaling.workload import LongTail

MODES = ("sync", "one_step_off", "async")
STEPS = {"sync": 3, "one_step_off": 5, "async": 9}  # until what is measured no longer depends on how it began
_SEED = 0

Row = dict[str, Any]


def placed(config: Config, gpus: int, mode: str, share: float = 0.5) -> Config:
    """The same run on so many GPUs. `sync` takes turns on all of them; else a `share` of them samples."""
    assert config.cluster
    size = config.cluster.tensor_parallel
    apart = mode != "sync"
    samplers = max(1, round(gpus * (share if apart else 1.0) / size))
    return changed(
        config,
        cluster__nodes=max(1, gpus // 8),
        cluster__learners=gpus - samplers * size if apart else gpus,
        cluster__samplers=samplers,
        cluster__placement="apart" if apart else "colocated",
        cluster__mode=mode,
    )


def run(config: Config, workload: LongTail, further: int = 0, **changes: Any) -> Row:
    """Simulate; the row says what the GPUs did: `utilisation` is their share of the time that was well spent, sampling
    at the rate of full samplers or learning."""
    assert config.cluster
    steps = STEPS[config.cluster.mode] + further
    system = replace(system_of(config), **changes)
    outcome = simulate(system, workload.draw(min(system.batch * steps, 20_000), _SEED), steps)
    cluster = config.cluster
    sampling = cluster.samplers * cluster.tensor_parallel
    gpus = cluster.learners + (sampling if cluster.placement == "apart" else 0)
    parts = (outcome.sampling * sampling + outcome.learning * cluster.learners) / gpus
    return {
        "gpus": gpus,
        "mode": cluster.mode,
        "samplers": cluster.samplers,
        "step_seconds": round(outcome.step_seconds, 1),
        "trajectories_per_second": round(outcome.trajectories_per_second, 3),
        "tokens_per_second": round(outcome.tokens / outcome.seconds),
        "utilisation": round(parts, 3),
        "sampling": round(outcome.sampling, 3),
        "learning": round(outcome.learning, 3),
        "staleness": round(sum(outcome.staleness) / max(1, len(outcome.staleness)), 2),
        "oldest": max(outcome.staleness, default=0),
    }


def gpus() -> Iterator[Row]:
    """More GPUs for the same batch of 2,048, and for one that grows with them."""
    base = preset()
    for count in (16, 32, 64, 128, 256, 512, 1024):
        for mode in MODES if count > 16 else MODES[:1]:  # 16 are too few for learners beside samplers
            config = placed(base, count, mode)
            yield run(config, workload_of(config)) | {"batch": "2,048"}
    for count in (32, 128, 256, 1024):
        for mode in MODES[::2]:
            config = changed(placed(base, count, mode), rl__prompts=2 * count)
            yield run(config, workload_of(config)) | {"batch": "16 a GPU"}


def split() -> Iterator[Row]:
    """How many of 128 GPUs should sample?"""
    base = preset()
    for share in (0.25, 0.375, 0.5, 0.625, 0.75):
        config = placed(base, 128, "async", share)
        yield run(config, workload_of(config)) | {"share": share}


def staleness() -> Iterator[Row]:
    """How far may weights be behind?"""
    base = preset()
    for count in (32, 128, 512):
        for bound in (1, 2, 4, 8):
            config = changed(placed(base, count, "async"), cluster__staleness=bound)
            yield run(config, workload_of(config), bound) | {"bound": bound}


def tail() -> Iterator[Row]:
    """The same mean length, with tails that differ; the paper's means before and after RL."""
    base = preset()
    for mean in (6000, 10000):
        for sigma in (0.3, 0.7, 1.1):
            for mode in MODES[::2]:
                config = placed(base, 128, mode)
                yield run(config, workload_of(config, mean, sigma=sigma)) | {"sigma": sigma, "mean": mean}


def tools() -> Iterator[Row]:
    """Calls that take longer, and sandboxes that take fewer at a time."""
    base = preset()
    for seconds in (0.1, 2.0, 30.0):
        for workers in (48, 4):
            for mode in MODES[::2]:
                config = placed(base, 128, mode)
                row = run(config, workload_of(config, tool_seconds=seconds), workers=workers)
                yield row | {"tool_seconds": seconds, "workers": workers}


SWEEPS = {"gpus": gpus, "split": split, "staleness": staleness, "tail": tail, "tools": tools}
