"""Tokenizers for models from scratch, and checkpoints."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from retool.config.schema import SftConfig
from retool.errors import RetoolError, UsageError
from retool.learner.checkpoint import (
    drop_old_states,
    latest_resumable,
    list_checkpoints,
    load_checkpoint,
    load_state,
    save_checkpoint,
)
from retool.learner.optimizer import Optimizer
from retool.learner.tokenizer import check_reload, train_tokenizer
from retool.learner.trained import Trained


@given(st.text(max_size=60))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_comes_back_exactly(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_digits_stand_alone_and_tags_are_single_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = tokenizer.tokenize("<code>12 times 34</code>")
    assert [tokens[0], tokens[1], tokens[2], tokens[-1]] == ["<code>", "1", "2", "</code>"]
    assert tokens[-3:-1] == ["3", "4"]


def test_the_same_texts_give_the_same_tokenizer() -> None:
    texts = ["a b c 1 2 3 abc abc", "print(1)"]
    assert train_tokenizer(texts, 300).get_vocab() == train_tokenizer(texts, 300).get_vocab()


def test_an_architecture_that_brings_its_own_tokenizer_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "What is the remainder when 12 is divided by 7?"
    check_reload(AutoConfig.for_model("llama"), tokenizer, text)
    with pytest.raises(UsageError, match="'qwen2' brings a tokenizer of its own"):
        check_reload(AutoConfig.for_model("qwen2"), tokenizer, text)


def untrained(model: PreTrainedModel) -> Trained:
    return Trained(model, Optimizer(model, SftConfig(), 1), torch.float32)


def test_a_checkpoint_is_a_hugging_face_folder_with_the_rest_inside(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    folder = save_checkpoint(tmp_path, 3, untrained(model), tokenizer, {"numbers": torch.arange(3)})
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(dict(loaded.state_dict()), dict(model.state_dict()))
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == tokenizer.get_vocab()
    state = load_state(folder)
    assert state["step"] == 3 and state["numbers"].tolist() == [0, 1, 2]


def test_a_write_that_fails_leaves_the_old_checkpoint_whole(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, 1, untrained(model), tokenizer, {})

    def broken(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("retool.learner.checkpoint.torch.save", broken)
    with pytest.raises(RetoolError, match="the disk is full"):
        save_checkpoint(tmp_path, 2, untrained(model), tokenizer, {})
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


def test_a_disk_that_takes_no_more_leaves_the_old_checkpoint_whole(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """The weights' writer has an exception class of its own."""
    resource = pytest.importorskip("resource")
    folder = save_checkpoint(tmp_path, 1, untrained(model), tokenizer, {"first": True})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, hard))
    try:
        with pytest.raises(RetoolError, match=r"could not be written: .*; make room"):
            save_checkpoint(tmp_path, 1, untrained(model), tokenizer, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]
    assert load_state(folder)["first"]
    AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("killed_at", [1, 2, 3])
def test_a_kill_while_a_checkpoint_is_replaced_leaves_one_whole(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, killed_at: int
) -> None:
    """The moments are: before anything is renamed, after the old one was moved aside, after the new one is in place."""
    save_checkpoint(tmp_path, 1, untrained(model), tokenizer, {"saved": 1})
    renames: list[Path] = []

    def rename(path: Path, target: Path) -> Path:
        if path.parent == tmp_path:
            renames.append(path)
            if len(renames) == killed_at:
                raise KeyboardInterrupt
        os.rename(path, target)
        return target

    def rmtree(path: Path, **_: object) -> None:
        if len(renames) == 2:
            raise KeyboardInterrupt
        shutil.rmtree(path, ignore_errors=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        patch.setattr("retool.learner.checkpoint.shutil", SimpleNamespace(rmtree=rmtree))
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path, 1, untrained(model), tokenizer, {"saved": 2})
    found = latest_resumable(tmp_path)
    assert found == tmp_path / "step-1"
    assert load_state(found)["saved"] == (1 if killed_at < 3 else 2)
    AutoModelForCausalLM.from_pretrained(found)
    save_checkpoint(tmp_path, 1, untrained(model), tokenizer, {"saved": 3})
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]
    assert load_state(found)["saved"] == 3


def test_ctrl_c_at_any_moment_waits_until_the_checkpoint_is_written(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """A moment is a call of a function. In those that C++ makes to write, Ctrl-C would end this process."""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    trained = untrained(model)

    def save(step: int, interrupted_at: int | None = None) -> int:
        calls = 0

        def count(*_: object) -> None:
            nonlocal calls
            calls += 1
            if calls == interrupted_at:
                signal.raise_signal(signal.SIGINT)

        sys.setprofile(count)
        try:
            save_checkpoint(tmp_path, step, trained, tokenizer, {})
        finally:
            sys.setprofile(None)
        return calls

    save(0)
    calls = save(1)
    for step, moment in enumerate(range(100, calls - 200, calls // 50), 2):
        with pytest.raises(KeyboardInterrupt):
            save(step, moment)
        found = latest_resumable(tmp_path)
        assert found == tmp_path / f"step-{step}"
        assert load_checkpoint(found, trained)["step"] == step
    assert step > 40 and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_old_states_go_and_their_weights_stay(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    for step in (1, 2, 10):
        save_checkpoint(tmp_path, step, untrained(model), tokenizer, {})
    drop_old_states(tmp_path, 1)
    assert [step for step, _ in list_checkpoints(tmp_path)] == [1, 2, 10]
    assert [(path / "trainer").exists() for _, path in list_checkpoints(tmp_path)] == [False, False, True]
    assert latest_resumable(tmp_path) == tmp_path / "step-10"
