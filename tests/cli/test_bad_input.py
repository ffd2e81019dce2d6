"""Bad input gets one clear sentence and exit code 2 (1 at run time), no traceback, and leaves nothing half-written."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from retool.cli import main

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def retool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in this process: exit code and what it wrote to stderr."""

    def run(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["retool", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, capsys.readouterr().err

    return run


def refused(outcome: tuple[int, str], code: int, *words: str) -> None:
    found, message = outcome
    assert found == code, message
    assert "Traceback" not in message
    for word in words:
        assert word in message
    assert len(message.strip().splitlines()[-1]) > 20


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps({"problem": "What is 1 + 1?", "answer": "2"}) + "\n")
    return path


def test_only_training_runs_in_several_processes(retool: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    refused(retool("eval", "nano", "--model", "m"), 2, "retool eval is one process, and torchrun has started several")


def test_an_unknown_key_names_the_nearest_one(retool: Run, tmp_path: Path) -> None:
    outcome = retool("rl", "nano", "rl.learning_rat=1", "--out", tmp_path / "run")
    refused(outcome, 2, "rl.learning_rat", "did you mean 'rl.learning_rate'")
    assert not (tmp_path / "run").exists()


def test_a_wrong_type_names_key_and_value(retool: Run, tmp_path: Path) -> None:
    refused(retool("rl", "nano", "rl.steps=ten", "--out", tmp_path / "r"), 2, "rl.steps must be an integer", "'ten'")


def test_an_unknown_preset_lists_those_there_are(retool: Run, tmp_path: Path) -> None:
    refused(retool("rl", "nanoo", "--out", tmp_path / "run"), 2, "nanoo", "presets are nano, ", "smollm2-135m")


def test_a_missing_data_file(retool: Run, tmp_path: Path) -> None:
    outcome = retool("eval", "--model", "m", "--data", tmp_path / "no.jsonl", "--out", tmp_path / "run")
    refused(outcome, 2, "there is no file", "no.jsonl")


def test_an_empty_data_set(retool: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    outcome = retool("eval", "--model", "m", "--data", tmp_path / "empty.jsonl", "--out", tmp_path / "run")
    refused(outcome, 2, "holds no problems")


def test_a_row_without_an_answer_is_named_by_file_and_line(retool: Run, problems: Path, tmp_path: Path) -> None:
    with problems.open("a") as file:
        file.write(json.dumps({"problem": "What is 1 + 2?"}) + "\n")
    outcome = retool("eval", "--model", "m", "--data", problems, "--out", tmp_path / "run")
    refused(outcome, 2, f"{problems}:2 has no answer")


def test_a_model_that_is_not_there(retool: Run, problems: Path, tmp_path: Path) -> None:
    outcome = retool("eval", "--model", tmp_path / "none", "--data", problems, "--out", tmp_path / "run")
    refused(outcome, 2, "no causal language model", "none")
    assert not (tmp_path / "run").exists()


def test_a_model_without_a_tokenizer(retool: Run, problems: Path, model_folder: Path, tmp_path: Path) -> None:
    for path in model_folder.glob("*token*"):
        path.unlink()
    outcome = retool("eval", "--model", model_folder, "--data", problems, "--out", tmp_path / "run")
    refused(outcome, 2, "has no tokenizer")


def test_a_model_without_a_chat_template(retool: Run, problems: Path, model_folder: Path, tmp_path: Path) -> None:
    (model_folder / "chat_template.jinja").unlink()
    outcome = retool("eval", "--model", model_folder, "--data", problems, "--out", tmp_path / "run")
    refused(outcome, 2, "chat template")


def test_a_prompt_longer_than_the_context(retool: Run, problems: Path, model_folder: Path, tmp_path: Path) -> None:
    problems.write_text(json.dumps({"problem": "1 " * 600, "answer": "2", "id": "long"}) + "\n")
    outcome = retool("eval", "--model", model_folder, "--data", problems, "--out", tmp_path / "run")
    refused(outcome, 2, "'long'", "context of 512", "lower rollout.max_tokens")


def test_rl_without_a_model(retool: Run, tmp_path: Path) -> None:
    refused(retool("rl", "nano", "--out", tmp_path / "run"), 2, "give --model")


def test_traces_that_are_none(retool: Run, problems: Path, tmp_path: Path) -> None:
    outcome = retool("sft", "nano", "--traces", problems, "--out", tmp_path / "run")
    refused(outcome, 2, "problems.jsonl:1 is not a trace", "retool synth")


def test_solutions_are_needed_to_make_traces(retool: Run, problems: Path, tmp_path: Path) -> None:
    refused(retool("synth", "--source", problems, "--out", tmp_path / "run"), 2, "worked solution")


def test_held_out_problems_that_are_trained_on(retool: Run, problems: Path, model_folder: Path, tmp_path: Path) -> None:
    data = ["--data", problems, "--heldout", problems]
    refused(retool("rl", "nano", "--model", model_folder, *data, "--out", tmp_path / "run"), 2, "also trained on")


def test_a_full_disk_leaves_no_half_written_checkpoint(
    retool: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from small_traces import write_traces

    traces = write_traces(tmp_path / "traces.jsonl")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torch.save", full)
    words = ["sft", "nano", "sft.steps=1", "sft.batch_size=2", "--traces", traces, "--out", tmp_path / "run"]
    refused(retool(*words), 1, "the disk is full", "run the same command again")
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


def test_debug_shows_the_traceback(retool: Run, tmp_path: Path) -> None:
    code, message = retool("--debug", "rl", "nano", "rl.steps=ten", "--out", tmp_path / "run")
    assert code == 2
    assert "Traceback" in message


def test_every_verb_explains_itself(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("quickstart", "synth", "sft", "rl", "eval", "analyze", "report", "doctor"):
        monkeypatch.setattr(sys, "argv", ["retool", verb, "--help"])
        main()
        assert "Usage: retool" in capsys.readouterr().out
