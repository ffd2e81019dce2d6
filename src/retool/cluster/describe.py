"""A plan for people, as tables of the terminal, and for programs, as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from retool.cluster.advice import gib
from retool.cluster.hardware import GIB
from retool.cluster.plan import ClusterPlan, Memory
from retool.cluster.step_time import StepTime


def to_json(plan: ClusterPlan) -> dict[str, Any]:
    """Bytes, FLOPs and seconds, each with its formula. `fits` is false where there are `problems`."""
    step = plan.step
    return {
        "fits": plan.fits,
        "problems": plan.problems,
        "notes": plan.notes,
        "hardware": str(plan.hardware),
        "parameters": plan.shape.parameters,
        "weights": plan.transport,
        "kv_rows": plan.kv_rows,
        "processes": [
            {"process": process.name, "node": process.node, "gpus": list(process.gpus)}
            for process in plan.placement.processes
        ],
        "sandboxes": plan.placement.sandboxes,
        "gpus": [_memory(memory) for memory in plan.gpus],
        "nodes": [_memory(memory) for memory in plan.nodes],
        "step": step
        and {
            "trajectories": step.trajectories,
            "response_tokens": step.response_tokens,
            "tokens": step.tokens,
            "flops": step.flops,
            "seconds": {phase.name: round(phase.seconds, 3) for phase in step.phases},
            "formulas": {phase.name: phase.formula for phase in step.phases},
            "step_seconds": round(step.seconds, 3),
        },
    }


def _memory(memory: Memory) -> dict[str, Any]:
    items = {item.name: {"bytes": item.size, "formula": item.formula} for item in memory.items}
    return {
        "owner": memory.owner,
        "items": items,
        "bytes": memory.used,
        "capacity": memory.capacity,
        "fits": memory.fits,
    }


def tables(plan: ClusterPlan) -> Iterator[RenderableType]:
    """Places, memory, seconds; then what is worth knowing, and what is in the way."""
    count = plan.shape.parameters
    parameters = f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.1f} M"
    yield Text(f"{plan.hardware}; {parameters} parameters; weights by {plan.transport}")
    yield _places(plan)
    yield from (_memory_table(memory, f"Memory of a GPU: {memory.owner}") for memory in plan.gpus)
    yield from _node_tables(plan.nodes)
    if plan.step:
        yield _step_table(plan.step)
    for note in plan.notes:
        yield Text(f"note: {note}")
    if plan.fits:
        yield Text("It fits.", style="bold green")
    for problem in plan.problems:
        yield Text(f"It does not fit: {problem}", style="bold red")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number and column != "formula" else "left", overflow="fold")
    return table


def _places(plan: ClusterPlan) -> Table:
    """One row for nodes that look alike."""
    table = _table("What goes where", "nodes", "learners", "samplers", "sandbox")
    described = [
        (
            _gpus(plan, node, "learner"),
            _gpus(plan, node, "sampler"),
            "yes" if node in plan.placement.sandboxes else "",
        )
        for node in range(plan.hardware.nodes)
    ]
    first = 0
    for cells, same in groupby(described):
        count = len(list(same))
        table.add_row(str(first) if count == 1 else f"{first} to {first + count - 1}", *cells)
        first += count
    return table


def _gpus(plan: ClusterPlan, node: int, kind: str) -> str:
    """How many of a kind a node has, and on how many GPUs each: `2 on 4 GPUs each`."""
    sizes = Counter(len(process.gpus) for process in plan.placement.on(node, kind))
    return ", ".join(f"{count}" if size == 1 else f"{count} on {size} GPUs each" for size, count in sizes.items())


def _memory_table(memory: Memory, title: str) -> Table:
    table = _table(title, "", "GiB", "formula")
    for item in memory.items:
        table.add_row(item.name, f"{item.size / GIB:.2f}", item.formula)
    table.add_section()
    style = "" if memory.fits else "bold red"
    verdict = f"of {gib(memory.capacity)} that can be used" + ("" if memory.fits else ": too much")
    table.add_row("sum", f"{memory.used / GIB:.2f}", verdict, style=style)
    return table


def _node_tables(nodes: list[Memory]) -> Iterator[Table]:
    """One table for nodes that hold the same."""
    for items, same in groupby(nodes, key=lambda memory: memory.items):
        alike = list(same)
        first, last = alike[0], alike[-1]
        others = f", as up to {last.owner}" if len(alike) > 1 else ""
        yield _memory_table(Memory(first.owner, items, first.capacity), f"Main memory of {first.owner}{others}")


def _step_table(step: StepTime) -> Table:
    title = f"A step: {step.trajectories:,} trajectories, {step.tokens / 1e6:.1f} M tokens (expected)"
    table = _table(title, "phase", "seconds", "formula")
    for phase in step.phases:
        table.add_row(
            phase.name, f"{phase.seconds:,.0f}" if phase.seconds >= 10 else f"{phase.seconds:.1f}", phase.formula
        )
    table.add_section()
    table.add_row("step", f"{step.seconds:,.0f}", "phases that overlap count once")
    return table
