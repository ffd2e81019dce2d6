"""A short training run from problems to checkpoints, and what must hold of what it leaves behind."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from small_run import small_config, train
from transformers import AutoModelForCausalLM, AutoTokenizer

from retool.errors import UsageError
from retool.runs import RunFolder, read_rows
from retool.stages.sources import load_split
from retool.stages.training.rl import run_rl
from retool.types import Author, Trajectory


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return RunFolder(train(small_config(), tmp_path_factory.mktemp("run")))


def model_tokens(trajectory: Trajectory) -> Iterator[tuple[int, float]]:
    """(position in prompt and response, stored log-probability) of each token that the model wrote."""
    position = len(trajectory.prompt_ids or ())
    for span in trajectory.spans:
        for offset, logprob in enumerate(span.logprobs or ()):
            yield position + offset, logprob
        position += len(span.ids or ())


def test_stored_log_probabilities_are_those_of_a_plain_forward_pass(run: RunFolder) -> None:
    """No text is tokenized or decoded: the stored ids go through the checkpoint that sampled them."""
    checked = 0
    for step, trajectories in run.read_trajectories().items():
        if step == 1:
            continue  # sampled from the cold start, which is another run's checkpoint
        model = AutoModelForCausalLM.from_pretrained(run.checkpoints / f"step-{step - 1}", dtype=torch.float32)
        for trajectory in trajectories:
            assert {s.version for s in trajectory.spans if s.author is Author.MODEL} == {step - 1}
            ids = torch.tensor([(trajectory.prompt_ids or []) + trajectory.response_ids])
            with torch.inference_mode():
                logprobs = model(ids).logits[0].log_softmax(-1)
            for position, stored in model_tokens(trajectory):
                assert abs(float(logprobs[position - 1, ids[0, position]]) - stored) < 1e-4
                checked += 1
    assert checked > 200


def test_checkpoints_load_as_they_are(run: RunFolder) -> None:
    for step in (1, 2, 3):
        folder = run.checkpoints / f"step-{step}"
        assert AutoModelForCausalLM.from_pretrained(folder).num_parameters() > 0
        text = "What is 12 times 7?\n<code>\nprint(12 * 7)\n</code>"
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_metrics_have_one_row_a_step_and_no_clock_in_them(run: RunFolder) -> None:
    rows = list(read_rows(run.metrics))
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert not [name for row in rows for name in row if "second" in name]
    assert {"reward", "entropy", "kl_sampler_learner", "grad_norm", "explained_variance"} <= rows[0].keys()


def test_the_learner_leaves_its_numbers_beside_the_trajectories(run: RunFolder) -> None:
    trajectories = run.read_trajectories()[2]
    with np.load(run.trajectories / "step-2.learner.npz") as record:
        ids, offsets, logprobs = list(record["ids"]), record["offsets"], record["logprobs"]
    for trajectory in trajectories:
        index = ids.index(trajectory.id)
        learner = logprobs[offsets[index] : offsets[index + 1]]
        sampled = [logprob for _, logprob in model_tokens(trajectory)]
        np.testing.assert_allclose(learner, sampled, atol=1e-4)


def test_held_out_problems_are_evaluated_at_the_start_on_the_way_and_at_the_end(run: RunFolder) -> None:
    assert {step: len(found) for step, found in run.read_evaluations().items()} == {0: 5, 2: 5, 3: 5}


def test_a_run_cut_off_after_a_checkpoint_ends_as_if_it_had_not_been(run: RunFolder, tmp_path: Path) -> None:
    """What a kill leaves: no checkpoint of the last step, a half-written one, and half a line in the metrics."""
    shutil.copytree(run.path, tmp_path / "rl")
    cut = RunFolder(tmp_path / "rl")
    shutil.rmtree(cut.checkpoints / "step-3")
    (cut.checkpoints / ".step-3.writing").mkdir()
    with cut.metrics.open("a") as file:
        file.write('{"step": 4, "rew')
    config = small_config(f"model.path={run.path.parent / 'sft' / 'checkpoints' / 'step-8'}")
    rows, heldout = load_split(config)
    asyncio.run(run_rl(config, [problem for problem, _ in rows], heldout, cut.path, "ReTool"))
    assert cut.metrics.read_bytes() == run.metrics.read_bytes()
    weights = [each.checkpoints / "step-3" / "model.safetensors" for each in (cut, run)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_another_config_does_not_go_on_in_the_folder(run: RunFolder) -> None:
    with pytest.raises(UsageError, match=r"another config.*name another --out"):
        run.open(small_config("seed=7"), {})


def test_a_step_of_more_problems_than_there_are_is_refused(tmp_path: Path) -> None:
    config = small_config("rl.prompts=8", "model.path=anything")
    problems = [problem for problem, _ in load_split(config)[0][:5]]
    with pytest.raises(UsageError, match=r"rl.prompts=8 different problems, and there are 5 to train on: lower"):
        asyncio.run(run_rl(config, problems, [], tmp_path / "rl", "ReTool"))


def test_the_config_and_the_machine_are_recorded(run: RunFolder) -> None:
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["versions"]["torch"] == torch.__version__
    assert (run.path / "config.yaml").read_text().startswith("seed: 0")
