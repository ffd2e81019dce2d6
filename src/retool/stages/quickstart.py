"""ReTool in miniature, with nothing faked: problems → traces → cold start → RL → evaluation → analysis → report.

Two arms learn from the same problems with the same numbers of traces, steps and rollouts: ReTool, which may call the
interpreter, and text-only, which calculates by hand. Every phase leaves its result in the run's folder, and a phase
that is there already is not computed again.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from retool.config.load import dump_config
from retool.config.schema import Config
from retool.data.jsonl import read_jsonl
from retool.errors import UsageError
from retool.files import publish
from retool.learner.policy import load_policy, load_tokenizer, parameter_count
from retool.protocol import make_protocol
from retool.reporting import Report, System, save_chart_png, terminal_table, write_report
from retool.runs import RunFolder
from retool.stages.eval.recipe import run_eval
from retool.stages.progress import console
from retool.stages.report.recipe import gather
from retool.stages.sources import load_split
from retool.stages.synth import synthesize
from retool.stages.training.rl import run_rl
from retool.stages.training.sft import read_traces, run_sft

RETOOL, TEXT_ONLY = "ReTool", "text-only"
SYSTEMS = {
    "cold_start": ("cold start", "ReTool before RL"),
    "retool": (RETOOL, "after RL with the interpreter"),
    "text_only": (TEXT_ONLY, "same problems, traces, steps and rollouts, no interpreter"),
    "retool_without_interpreter": ("ReTool, no interpreter", "the opening of a call is never sampled"),
}
_SUMMARY_KEYS = ("accuracy", "ci95", "problems", "samples", "truncated", "code_ratio", "code_pass_rate", "families")


def run_quickstart(config: Config, out: Path) -> dict[str, Any]:
    """All of it; returns what `summary.json` holds. Run again, it goes on where it was stopped."""
    phases = _Phases(out, config)
    text_config = config.model_copy(update={"protocol": config.protocol.model_copy(update={"name": "text"})})
    rows, heldout = load_split(config)
    problems = [problem for problem, _ in rows]

    traces, text_traces = out / "synth" / "traces.jsonl", out / "synth" / "text_traces.jsonl"
    phases.run("synthesis", out / "synth" / "README.md", synthesize, config, rows, out / "synth")

    checkpoints = {}
    for arm, folder, arm_config, arm_traces in (
        (RETOOL, out / "retool", config, traces),
        (TEXT_ONLY, out / "text_only", text_config, text_traces),
    ):
        cold = folder / "sft" / "checkpoints" / f"step-{config.sft.steps}"
        phases.run(f"sft_{folder.name}", cold, run_sft, arm_config, arm_traces, folder / "sft")
        trained = folder / "rl" / "checkpoints" / f"step-{config.rl.steps}"
        started = _with_model(arm_config, cold)
        phases.run(f"rl_{folder.name}", trained, run_rl, started, problems, heldout, folder / "rl", arm)
        checkpoints[folder.name] = cold, trained

    without = config.model_copy(update={"eval": config.eval.model_copy(update={"interpreter": "off"})})
    evaluations = {
        "cold_start": (config, checkpoints["retool"][0]),
        "retool": (config, checkpoints["retool"][1]),
        "text_only": (text_config, checkpoints["text_only"][1]),
        "retool_without_interpreter": (without, checkpoints["retool"][1]),
    }
    for name, (eval_config, checkpoint) in evaluations.items():
        folder = out / "eval" / name
        settings = _with_model(eval_config, checkpoint)
        phases.run(f"evaluation_{name}", folder / "results.json", run_eval, settings, heldout, folder, name)
    results = {name: json.loads((out / "eval" / name / "results.json").read_text("utf-8")) for name in SYSTEMS}
    summary = phases.totals() | {
        "steps": {"sft": config.sft.steps, "rl": config.rl.steps},
        "seed": config.seed,
        "token_limit": _token_limit(config, text_config, checkpoints["text_only"][0], text_traces),
        **{name: {key: result[key] for key in _SUMMARY_KEYS} for name, result in results.items()},
    }
    publish(out / "summary.json", json.dumps(summary, indent=2) + "\n")
    report = _report(config, out, summary, checkpoints["retool"][1])
    write_report(out / "report.html", report)
    save_chart_png(out / "report.png", report)
    console.print(terminal_table(report.systems, f"{summary['retool']['problems']} held-out problems"))
    console.print(f"{_verdict(summary)}\nreport: {out / 'report.html'}")
    return summary


def _with_model(config: Config, checkpoint: Path) -> Config:
    return config.model_copy(update={"model": config.model.model_copy(update={"path": str(checkpoint)})})


def _token_limit(config: Config, text_config: Config, checkpoint: Path, text_traces: Path) -> dict[str, float]:
    """The budget of a response beside the 99th percentile of the text arm's traces: the limit must not be what keeps
    text-only down. Raises UsageError if it is lower."""
    protocol = make_protocol(text_config.protocol, load_tokenizer(checkpoint))
    lengths = [len(protocol.render(trace).response_ids) for trace in read_traces(text_traces)]
    percentile = float(np.percentile(lengths, 99))
    if percentile > config.rollout.max_tokens:
        raise UsageError(
            f"the text traces need {percentile:.0f} tokens (99th percentile), more than rollout.max_tokens="
            f"{config.rollout.max_tokens}: raise it, or text-only is judged by the limit"
        )
    return {"max_tokens": config.rollout.max_tokens, "text_traces_p99": percentile}


def _report(config: Config, out: Path, summary: dict[str, Any], trained: Path) -> Report:
    runs = {RETOOL: RunFolder(out / "retool" / "rl"), TEXT_ONLY: RunFolder(out / "text_only" / "rl")}
    found = gather(runs, {label: out / "eval" / name for name, (label, _) in SYSTEMS.items()})
    model, _ = load_policy(config.model.model_copy(update={"path": str(trained)}))
    environment = json.loads((runs[RETOOL].path / "environment.json").read_text("utf-8"))
    facts = {
        "seed": config.seed,
        "model": f"{parameter_count(model):,} parameters, from scratch",
        "cold-start traces": f"{sum(1 for _ in read_jsonl(out / 'synth' / 'traces.jsonl'))} an arm",
        "SFT": f"{config.sft.steps} steps of {config.sft.batch_size} traces, each arm",
        "RL": f"{config.rl.steps} steps of {config.rl.prompts} × {config.rl.samples} responses, each arm",
        "computing": f"{summary['seconds']:.0f} s ({summary['cpu_seconds']:.0f} CPU s)",
        "sandbox": str((environment.get("isolation") or {}).get("profile", "")),
        "versions": ", ".join(f"{name} {version}" for name, version in environment["versions"].items()),
    }
    return found.report(
        title="ReTool in miniature",
        summary=_verdict(summary),
        facts={name: fact for name, fact in facts.items() if fact != ""},
        systems=[System.from_json(label, found.results[label], note) for label, note in SYSTEMS.values()],
    )


def _verdict(summary: dict[str, Any]) -> str:
    accuracy = {name: summary[name]["accuracy"] for name in SYSTEMS}
    return (
        f"A model that learned when and how to call Python solves {accuracy['retool']:.0%} of the held-out problems, "
        f"up from {accuracy['cold_start']:.0%} after its cold start; one trained the same way without an interpreter "
        f"solves {accuracy['text_only']:.0%}."
    )


class _Phases:
    """Runs each phase once and keeps account of its time in `phases.json`, over interruptions between phases."""

    def __init__(self, out: Path, config: Config):
        self._path = out / "phases.json"
        resolved, existing = dump_config(config), out / "config.yaml"
        if existing.exists() and existing.read_text("utf-8") != resolved:
            raise UsageError(f"{out} holds a quickstart with another config; name another --out, or delete that folder")
        publish(existing, resolved)
        self._done: dict[str, dict[str, float]] = (
            json.loads(self._path.read_text("utf-8")) if self._path.exists() else {}
        )

    def run(self, name: str, result: Path, work: Callable[..., Any], *arguments: Any) -> None:
        """Do `work`, a function or a coroutine function, unless `result` is there and the phase is on record."""
        if name in self._done and result.exists():
            return
        began, cpu = time.perf_counter(), _cpu_seconds()
        outcome = work(*arguments)
        if inspect.iscoroutine(outcome):
            asyncio.run(outcome)
        self._done[name] = {"seconds": time.perf_counter() - began, "cpu_seconds": _cpu_seconds() - cpu}
        publish(self._path, json.dumps(self._done, indent=2) + "\n")

    def totals(self) -> dict[str, Any]:
        return {
            "seconds": round(sum(phase["seconds"] for phase in self._done.values()), 1),
            "cpu_seconds": round(sum(phase["cpu_seconds"] for phase in self._done.values()), 1),
            "seconds_by_phase": {name: round(phase["seconds"], 1) for name, phase in self._done.items()},
        }


def _cpu_seconds() -> float:
    """Of this process and of the children that it has waited for, such as the sandbox's supervisor with all its own."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
