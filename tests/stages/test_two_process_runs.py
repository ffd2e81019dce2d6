"""Runs of two processes: `sft` and `rl` as one process does them, with what one leaves behind, and to go on from it."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_run import OVERRIDES, reinforce, small_config
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from retool.config.schema import Config, ModelConfig
from retool.errors import RetoolError, UsageError
from retool.learner.checkpoint import list_checkpoints
from retool.learner.distributed import Processes, join_processes
from retool.learner.policy import load_policy
from retool.objectives.registry import register
from retool.runs import RunFolder, read_rows
from retool.stages.progress import Progress
from retool.stages.training.sft import run_sft
from retool.stages.workbench import open_workbench
from retool.types import Problem, Trajectory
from small_vllm import SmallVllm
from two_processes import InTwo, free_port

needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")
RL = (
    *("threads=1", "rl.steps=3", "rl.eval_every=3", "rl.eval_problems=3", "rl.micro_batch_tokens=256"),
    *("rl.reward=parity", "rl.learning_rate=1e-3"),
)
SFT = ("threads=1", "sft.micro_batch_tokens=512", "sft.steps=10")
PROBLEM = Problem("p1", "What is 12 times 7?", "84", "test")
KL = "rl.kl.k2.coefficient=0.1"


@pytest.fixture(scope="module")
def traces(cold: Path) -> Path:
    return cold.parents[2] / "synth" / "traces.jsonl"


@pytest.fixture(scope="module")
def one(cold: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return reinforce(small_config(*RL), cold, tmp_path_factory.mktemp("one") / "rl")


@pytest.fixture(scope="module")
def two(cold: Path, in_two: InTwo, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = RunFolder(tmp_path_factory.mktemp("two") / "rl")
    in_two(rl, small_config(*RL), cold, run.path)
    return run


# What runs in each of the processes


@register("reward", "parity")
def parity(trajectory: Trajectory) -> dict[str, float]:
    """About as often 1 as 0, so that there is something to learn."""
    return {"total": float(trajectory.spans[0].ids[0] % 2)}


def rl(config: Config, cold: Path, out: Path, asked_after: int | None = None) -> str:
    """How the run ended. The second process, and it alone, gets SIGTERM when so many things have happened in its
    rollouts."""
    changed, left = Progress.rollout_changed, [asked_after]

    def counted(self: Progress, meter: Any) -> None:
        changed(self, meter)
        left[0] = None if left[0] is None else left[0] - 1
        if left[0] == 0 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "rollout_changed", counted)
        return _ending(reinforce, config, cold, out)


def sft(config: Config, traces: Path, out: Path, asked_after: int | None = None) -> str:
    """How the run ended. The second process gets SIGTERM when it has done so many steps."""
    done, left = Progress.step_done, [asked_after]

    def counted(self: Progress, note: str) -> None:
        done(self, note)
        left[0] = None if left[0] is None else left[0] - 1
        if left[0] == 0 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "step_done", counted)
        return _ending(run_sft, config, traces, out)


def sample_by_vllm(config: Config, folder: Path) -> tuple[list[str], int, int]:
    """With a server for each process: the problems that all got answered, in how many streams of its own server, and
    the requests that are on record."""
    model, tokenizer = load_policy(ModelConfig(path=str(folder), device="cpu"))
    problems = [Problem(f"p{n}", f"What is {n} times 7?", str(7 * n), "test") for n in range(5)]

    async def main(processes: Processes) -> tuple[list[str], int, int]:
        vllm = SmallVllm(model)
        async with vllm.serve() as url:
            sampler = config.sampler.model_copy(update={"urls": tuple(processes.gather(url))})
            settings = config.model_copy(update={"sampler": sampler})
            names = {"model_name": "m", "arm": "a", "processes": processes}
            async with open_workbench(settings, model, tokenizer, problems, **names) as bench:
                with Progress("rollout", 1) as progress:
                    rollout = await bench.roll_out(
                        problems, step=0, samples=2, sampling=config.sampling, progress=progress
                    )
            return [each.problem.id for each in rollout.trajectories], len(vllm.streams), rollout.record["requests"]

    with join_processes(torch.device("cpu")) as processes:
        return asyncio.run(main(processes))


def _ending(function: Any, *arguments: Any) -> str:
    try:
        function(*arguments)
    except RetoolError as error:
        return f"{type(error).__name__}: {error}"
    return "done"


# What they are compared by


def assert_alike(run: RunFolder, other: RunFolder, first: float = 1e-5, later: float = 1e-3) -> None:
    """Two runs have the same rows, by so much, the same tokens and files, and weights that say the same."""
    rows, others = ({row["step"]: row for row in read_rows(each.metrics)} for each in (run, other))
    assert rows.keys() == others.keys()
    for step, row in rows.items():
        assert row == pytest.approx(others[step], rel=first if step == 1 else later, abs=first if step == 1 else later)
    trajectories = ([*each.read_trajectories().values(), *each.read_evaluations().values()] for each in (run, other))
    assert [tokens(found) for found in next(trajectories)] == [tokens(found) for found in next(trajectories)]
    for path in run.trajectories.glob("*.npz"):
        with np.load(path) as record, np.load(other.trajectories / path.name) as other_record:
            assert list(record["ids"]) == list(other_record["ids"])
            for name in ("logprobs", "values", "advantages"):
                np.testing.assert_allclose(record[name], other_record[name], atol=later)
    found = ({str(path.relative_to(each.path)) for path in each.path.rglob("*")} for each in (run, other))
    files, other_files = ({name for name in each if ".distcp" not in name} for each in found)
    assert files == other_files
    weights = (load_file(list_checkpoints(each.checkpoints)[-1][1] / "model.safetensors") for each in (run, other))
    torch.testing.assert_close(*weights, rtol=0, atol=later)


def assert_learned(run: RunFolder) -> None:
    assert all(row["grad_norm"] > 1e-3 for row in read_rows(run.metrics))


def tokens(trajectories: list[Trajectory]) -> list[tuple[str, list[int]]]:
    return [(trajectory.id, trajectory.response_ids) for trajectory in trajectories]


# Training


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_two_processes_fine_tune_as_one(optimizer: str, traces: Path, in_two: InTwo, tmp_path: Path) -> None:
    config = small_config(*SFT, f"sft.optimizer={optimizer}")
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    run_sft(config, traces, one.path)
    assert in_two(sft, config, traces, two.path) == ["done", "done"]
    assert_alike(two, one)
    losses = [row["loss"] for row in read_rows(two.metrics)]
    assert len(losses) == 10 and losses[-1] < losses[0]


def test_two_processes_learn_by_ppo_as_one(one: RunFolder, two: RunFolder) -> None:
    assert_alike(two, one)
    assert_learned(two)
    assert [len(found) for found in two.read_evaluations().values()] == [3, 3]


@pytest.mark.parametrize(
    "settings",
    [
        ("rl.critic.trunk=own", "rl.critic.warmup_steps=1"),
        ("rl.algorithm=grpo", KL, "rl.steps=10", "rl.old_logprobs=learner"),
        ("rl.algorithm=dapo", "rl.refill=2", "rl.prompts=3", "rl.epochs=2"),
        pytest.param(("model.lora.rank=4", "rl.algorithm=grpo", KL), marks=needs_peft),
    ],
    ids=["own_critic", "grpo_and_reference", "dapo", "adapters"],
)
def test_whatever_is_learned_by_two_is_learned_by_one(
    settings: tuple[str, ...], cold: Path, in_two: InTwo, tmp_path: Path
) -> None:
    config = small_config(*RL, *settings)
    one, two = reinforce(config, cold, tmp_path / "one"), RunFolder(tmp_path / "two")
    assert in_two(rl, config, cold, two.path) == ["done", "done"]
    assert_alike(two, one)
    assert_learned(two)


def test_in_bfloat16_checkpoints_hold_bfloat16(cold: Path, in_two: InTwo, tmp_path: Path) -> None:
    config = small_config(*RL, "model.dtype=bfloat16", "rl.steps=2")
    one, two = reinforce(config, cold, tmp_path / "one"), RunFolder(tmp_path / "two")
    assert in_two(rl, config, cold, two.path) == ["done", "done"]
    assert tokens(two.read_trajectories()[1]) == tokens(one.read_trajectories()[1])
    for run in (one, two):
        weights = load_file(run.checkpoints / "step-2" / "model.safetensors")
        assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
        assert '"dtype": "bfloat16"' in (run.checkpoints / "step-2" / "config.json").read_text()


# Going on


@pytest.mark.parametrize("others", ["one", "two"])
def test_a_run_goes_on_with_another_number_of_processes(
    others: str, one: RunFolder, two: RunFolder, cold: Path, in_two: InTwo, tmp_path: Path
) -> None:
    begun = {"one": two, "two": one}[others]
    run = RunFolder(tmp_path / "rl")
    shutil.copytree(begun.path, run.path)
    shutil.rmtree(run.checkpoints / "step-3")
    if others == "one":
        reinforce(small_config(*RL), cold, run.path)
    else:
        assert in_two(rl, small_config(*RL), cold, run.path) == ["done", "done"]
    assert_alike(run, begun)


@pytest.mark.parametrize("asked_after", [3, 30])
def test_sigterm_to_one_process_ends_all(
    asked_after: int, two: RunFolder, cold: Path, in_two: InTwo, tmp_path: Path
) -> None:
    """In the first evaluation, where nothing has been learned yet, or in a later rollout."""
    run, config = RunFolder(tmp_path / "rl"), small_config(*RL, "rl.save_every=10")
    endings = in_two(rl, config, cold, run.path, asked_after=asked_after)
    saved = list_checkpoints(run.checkpoints)
    what = f"what was learned is saved in {saved[-1][1]}" if saved else "there was nothing new to save"
    assert endings == [f"Stopped: ended by SIGTERM, {what}; run the same command again to go on"] * 2
    assert bool(saved) == (asked_after == 30)
    assert in_two(rl, config, cold, run.path) == ["done", "done"]
    assert run.metrics.read_bytes() == two.metrics.read_bytes()


def test_sigterm_to_one_process_ends_fine_tuning_for_all(traces: Path, in_two: InTwo, tmp_path: Path) -> None:
    run, config = RunFolder(tmp_path / "stopped"), small_config(*SFT)
    endings = in_two(sft, config, traces, run.path, asked_after=3)
    assert [ending.partition(":")[0] for ending in endings] == ["Stopped", "Stopped"]
    saved = list_checkpoints(run.checkpoints)[-1][0]
    assert saved in (3, 4)
    assert in_two(sft, config, traces, run.path) == ["done", "done"]
    undisturbed = RunFolder(tmp_path / "undisturbed")
    assert in_two(sft, config, traces, undisturbed.path) == ["done", "done"]
    assert run.metrics.read_bytes() == undisturbed.metrics.read_bytes()


def test_what_one_process_finds_wrong_ends_all(cold: Path, in_two: InTwo, tmp_path: Path) -> None:
    """The folder is the first one's to look at, and it holds another run."""
    shutil.copytree(cold.parents[1], tmp_path / "rl")
    endings = in_two(rl, small_config(*RL), cold, tmp_path / "rl")
    assert all("holds a run with another config" in ending for ending in endings)
    config = small_config(*RL, "model.device=cpu:0")
    assert all("model.device=cpu each takes its own" in each for each in in_two(rl, config, cold, tmp_path / "new"))


def test_each_process_has_vllm_servers_of_its_own(in_two: InTwo, model_folder: Path) -> None:
    config = Config.model_validate(
        {"threads": 1, "rollout": {"max_tokens": 20}, "sampler": {"backend": "vllm"}, "protocol": {"name": "text"}}
    )
    (answered, own, requests), (others, other, _) = in_two(sample_by_vllm, config, model_folder)
    assert answered == others == [f"p{n}" for n in range(5) for _ in range(2)]
    assert (own, other) == (6, 4) and requests == 10


@pytest.mark.parametrize(
    ("settings", "found"),
    [({"urls": ["http://127.0.0.1:1"]}, "found 1"), ({"vllm_python": "python"}, "vllm_python, which starts one")],
)
def test_too_few_vllm_servers_are_refused(
    settings: dict[str, Any], found: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    async def opening() -> None:
        sections = {"sampler": {"backend": "vllm", **settings}, "rollout": {"max_tokens": 20}}
        names = {"model_name": "m", "arm": "a", "processes": Processes(0, 2)}
        async with open_workbench(Config.model_validate(sections), model, tokenizer, [PROBLEM], **names):
            pass

    with pytest.raises(UsageError, match=f"2 processes sample from vLLM servers of their own: .*{found}"):
        asyncio.run(opening())


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the cores of a process are Linux's to tell")
@pytest.mark.parametrize(("asked", "workers"), [(None, 4), (7, 7)])
def test_the_processes_of_a_machine_share_its_cores(
    asked: int | None,
    workers: int,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")

    async def opening() -> int:
        sections = {"rollout": {"max_tokens": 20}, "sandbox": {"workers": asked, "allow_weak": True}}
        config = Config.model_validate(sections)
        async with open_workbench(config, model, tokenizer, [PROBLEM], model_name="m", arm="a") as bench:
            return bench.sandbox.workers

    assert asyncio.run(opening()) == workers


@pytest.mark.slow
def test_torchrun_runs_it(traces: Path, tmp_path: Path) -> None:
    """The command line, and who speaks."""
    words = [*OVERRIDES, *SFT, "--traces", str(traces), "--out", str(tmp_path / "sft")]
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    found = subprocess.run(
        [sys.executable, *torchrun, "-m", "retool", "sft", "nano", *words], capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 0, found.stderr
    assert found.stderr.count("SFT (tags): done") == 1
    assert found.stderr.count("trained: ") == 1
    assert [row["step"] for row in read_rows(tmp_path / "sft" / "metrics.jsonl")] == list(range(1, 11))
