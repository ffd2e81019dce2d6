"""Two processes that train one model make the updates that one makes, and what they save any number can go on from."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from retool.config.sampling import SamplingConfig
from retool.config.schema import LoraConfig, SftConfig
from retool.errors import RetoolError, UsageError
from retool.learner.adapters import add_adapters, without_adapters
from retool.learner.critic import Critic
from retool.learner.distributed import ALONE, Processes, join_processes, merge_parts
from retool.learner.logprobs import score
from retool.learner.optimizer import Optimizer
from retool.learner.packing import Example, make_batch
from retool.learner.trained import Trained
from retool.sampling.engine import Engine
from retool.sampling.sampler import SamplingParams
from two_processes import InTwo, as_process, free_port

CPU = torch.device("cpu")
LENGTHS = (9, 14, 19, 24, 29, 34, 39)
needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")


def example(length: int) -> Example:
    return Example([9, *range(40, 40 + length - 1)], [False] * 4 + [True] * (length - 4))


def small_model(hidden: int = 32, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    config = AutoConfig.for_model(
        "llama",
        vocab_size=100,
        hidden_size=hidden,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=dtype)


@dataclass
class Training:
    """A policy and its critic under training: SFT with a value loss beside it."""

    processes: Processes
    optimizer: str = "adamw"
    dtype: torch.dtype = torch.float32
    own_trunk: bool = False
    lora: bool = False
    hidden: int = 32
    lengths: tuple[int, ...] = LENGTHS
    folder: Path | None = None
    """Of the model that it begins with."""

    def __post_init__(self) -> None:
        self.model = small_model(self.hidden, self.dtype)
        if self.folder and not self.lora:
            self.model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=self.dtype)
        self.critic = Critic(self.model, self.own_trunk)
        if self.lora:
            add_adapters(self.model, LoraConfig(rank=4), seed=0)
        self.sampled = self.processes.replicate(self.model)
        self.processes.shard(self.model)
        self.processes.shard(self.critic)
        config = SftConfig(optimizer=self.optimizer, learning_rate=3e-3, max_grad_norm=0.5)
        further = [(self.critic.head_parameters(), 1e-2), (self.critic.trunk_parameters(), 1e-3)]
        self.steps = Optimizer(self.model, config, 100, further)
        self.trained = Trained(self.model, self.steps, self.dtype, self.critic, self.processes)

    def step(self) -> tuple[float, float]:
        """The loss of a step and the norm of its gradient."""
        examples = [example(length) for length in self.lengths]
        tokens = sum(sum(each.mask) for each in examples)
        self.model.train()
        sums = {"loss": 0.0}
        for indices, weight in self.processes.passes(self.lengths, budget=60):
            batch = make_batch(examples, indices, CPU)
            scores = score(self.model, batch)
            values_N = self.critic(batch, scores.states_ND)
            loss = weight * (0.1 * (values_N - 1).square() - scores.logprobs_N).sum() / tokens
            loss.backward()
            sums["loss"] += float(loss.detach())
        norm = self.steps.step()
        return self.processes.add_up(sums)["loss"], norm

    def train(self, count: int) -> list[tuple[float, float]]:
        return [self.step() for _ in range(count)]

    def state(self) -> dict[str, np.ndarray]:
        """What has been learned, weights and moments, whole."""
        found: dict[str, torch.Tensor] = {}
        for module in (self.model, self.critic):
            for name, parameter in module.named_parameters():
                if parameter.requires_grad:
                    found[name] = self.steps.learned(parameter)
                    found |= {f"{name}.{kind}": moment for kind, moment in self.steps.moments(parameter).items()}
        wholes = {name: each.full_tensor() if isinstance(each, DTensor) else each for name, each in found.items()}
        return {name: whole.detach().numpy().copy() for name, whole in wholes.items()}


def greedy(model: PreTrainedModel, first: int) -> list[int]:
    async def main() -> list[int]:
        engine = Engine(model.eval(), rows=1, capacity=40)
        params = SamplingParams(SamplingConfig(temperature=0.0), 20, frozenset())
        return (await engine.extend(None, [9, first], params, lambda _: False, 0)).ids

    return asyncio.run(main())


# What runs in each of the processes


def train(processes: Processes, count: int, **settings: Any) -> list[tuple[float, float]]:
    return Training(processes, **settings).train(count)


def compare_with_reference(processes: Processes) -> tuple[np.ndarray, list[Any]]:
    """What the policy said before it had adapters, asked while they learn, and the steps after that."""
    training = Training(processes, lora=True)
    training.train(2)
    batch = make_batch([example(20)], [0], CPU)
    with torch.no_grad(), without_adapters(training.model):
        reference_N = score(training.model, batch).logprobs_N
    return reference_N.numpy().copy(), training.train(2)


def train_and_save(processes: Processes, folder: Path, **settings: Any) -> tuple[dict[str, np.ndarray], list[Any]]:
    """The state that is saved after two steps, and two more steps."""
    training = Training(processes, **settings)
    training.train(2)
    training.trained.save_rest(folder / "rest")
    training.trained.save_model(folder / "model")
    return training.state(), training.train(2)


def load_and_save(
    processes: Processes, folder: Path, again: Path | None = None, **settings: Any
) -> tuple[dict[str, np.ndarray], list[Any]]:
    """The state that is loaded, and two more steps. It is saved `again` before them."""
    training = Training(processes, folder=folder / "model", **settings)
    training.trained.load_rest(folder / "rest")
    state = training.state()
    if again:
        training.trained.save_rest(again / "rest")
        training.trained.save_model(again / "model")
    return state, training.train(2)


def load_another(processes: Processes, folder: Path) -> str:
    try:
        Training(processes, hidden=64).trained.load_rest(folder / "rest")
    except UsageError as error:
        return str(error)
    return "loaded"


def write_and_sample(processes: Processes, folder: Path, **settings: Any) -> tuple[list[list[int]], float]:
    """Greedy tokens of a sharded model, of which one process samples more than the other, and the next loss."""
    training = Training(processes, **settings)
    training.train(3)
    training.trained.save_model(folder)
    training.trained.copy_to(training.sampled)
    tokens = [greedy(training.sampled, first) for first in ((1,), (2, 3))[processes.rank]]
    return [each for part in processes.gather(tokens) for each in part], training.step()[0]


def exchange(processes: Processes) -> tuple[list[int], list[int], dict[str, float], int]:
    squares = merge_parts(processes.gather([item**2 for item in processes.part(range(5))]))
    found = processes.settle(processes.rank)
    sums = processes.add_up({"both": 1.0, f"rank{processes.rank}": 0.5})
    return squares, found, sums, processes.once(lambda: 10 + processes.rank)


def settle(processes: Processes, outcomes: list[Any]) -> str:
    """What comes of an outcome in each process."""
    try:
        return str(processes.settle(outcomes[processes.rank]))
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


def fail_once(processes: Processes) -> str:
    def fail() -> None:
        raise OSError("no space left")

    try:
        processes.once(fail)
    except (OSError, RetoolError) as error:
        return f"{type(error).__name__}: {error}"
    return "done"


def leave_early(processes: Processes) -> str:
    """The second process goes away, and the first one waits for it."""
    if processes.rank == 1:
        return "gone"
    try:
        processes.gather(1)
    except RetoolError as error:
        return str(error)
    return "gathered"


# How they are started


def joined(function: Callable, args: tuple, settings: dict[str, Any]) -> Any:
    with join_processes(CPU) as processes:
        return function(processes, *args, **settings)


@pytest.fixture
def together(in_two: InTwo) -> InTwo:
    """Runs a function of the processes, and of more, in two of them."""
    return lambda function, *args, **settings: in_two(joined, function, args, settings)


def in_one(function: Callable, *args: Any, **settings: Any) -> Any:
    """Runs it here, as torchrun starts a single process."""
    return as_process(0, 1, free_port(), joined, (function, args, settings), {})


@pytest.mark.parametrize(
    ("settings", "later"),
    [
        ({}, 1e-5),
        ({"optimizer": "muon", "own_trunk": True}, 1e-3),  # Muon's sums in bfloat16 go over shards
        ({"lengths": (30,)}, 1e-5),  # the second process only keeps step
        pytest.param({"lora": True}, 1e-5, marks=needs_peft),
    ],
    ids=str,
)
def test_two_processes_make_the_losses_of_one(together: InTwo, settings: dict[str, Any], later: float) -> None:
    expected = np.array(train(ALONE, 10, **settings))
    first, second = (np.array(each) for each in together(train, 10, **settings))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(first[:, 0], expected[:, 0], atol=later)
    assert expected[-1, 0] < expected[0, 0] - 0.1
    assert expected[0, 1] > 0.5  # the norm over all shards decides: gradients are clipped


@needs_peft
def test_the_reference_of_a_sharded_policy_is_the_policy_without_its_adapters(together: InTwo) -> None:
    untrained = score(small_model(), make_batch([example(20)], [0], CPU)).logprobs_N.detach().numpy()
    _, expected = compare_with_reference(ALONE)
    for reference, steps in together(compare_with_reference):
        np.testing.assert_allclose(reference, untrained, atol=1e-6)
        np.testing.assert_allclose(steps, expected, rtol=1e-5)


KINDS = pytest.mark.parametrize(
    "settings",
    [
        {},
        {"optimizer": "muon", "own_trunk": True},
        {"dtype": torch.bfloat16},
        pytest.param({"lora": True}, marks=needs_peft),
        pytest.param({"lora": True, "dtype": torch.bfloat16}, marks=needs_peft),
    ],
    ids=str,
)


@KINDS
def test_what_two_saved_one_goes_on_from_and_two_again(
    together: InTwo, tmp_path: Path, settings: dict[str, Any]
) -> None:
    two, one = tmp_path / "two", tmp_path / "one"
    saved, went_on = together(train_and_save, two, **settings)[0]
    loaded, alone = load_and_save(ALONE, two, one, **settings)
    again, resumed = together(load_and_save, one, **settings)[0]
    np.testing.assert_equal(loaded, saved)
    np.testing.assert_equal(again, saved)
    np.testing.assert_array_equal(resumed, went_on)
    np.testing.assert_allclose(alone, went_on, rtol=2e-2 if "dtype" in settings else 1e-5)


def test_what_one_saved_is_the_same_under_torchrun(tmp_path: Path) -> None:
    saved, went_on = train_and_save(ALONE, tmp_path)
    loaded, resumed = in_one(load_and_save, tmp_path)
    np.testing.assert_equal(loaded, saved)
    np.testing.assert_allclose(resumed, went_on, rtol=1e-6)


def test_shards_of_another_model_are_refused(together: InTwo, tmp_path: Path) -> None:
    together(train_and_save, tmp_path)
    for message in together(load_another, tmp_path):
        assert "is [32] there, and [64] here); go on with the settings that it was made with" in message


def test_a_folder_without_shards_is_refused(tmp_path: Path) -> None:
    assert "holds no shards" in load_another(ALONE, tmp_path)


@pytest.mark.parametrize(
    "settings", [{}, {"dtype": torch.bfloat16}, pytest.param({"lora": True}, marks=needs_peft)], ids=str
)
def test_a_sharded_model_is_written_and_sampled_whole(
    together: InTwo, tmp_path: Path, settings: dict[str, Any]
) -> None:
    (tokens, loss), (_, other) = together(write_and_sample, tmp_path, **settings)
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert model.dtype is settings.get("dtype", torch.float32)
    assert tokens == [greedy(model, first) for first in (1, 2, 3)]
    assert loss == other < train(ALONE, 1)[0][0]  # training goes on where it was


def test_processes_tell_each_other_what_they_have(together: InTwo) -> None:
    for squares, ranks, sums, once in together(exchange):
        assert squares == [0, 1, 4, 9, 16]
        assert ranks == [0, 1]
        assert sums == {"both": 2.0, "rank0": 0.5, "rank1": 0.5}
        assert once == 10


def test_an_error_of_one_process_is_everyones(together: InTwo) -> None:
    error, cancellation = ValueError("broken\nin many places"), asyncio.CancelledError()
    failed, cancelled = "RetoolError: process 1 of 2 has failed: broken", "CancelledError: "
    own = "ValueError: broken\nin many places"
    assert together(settle, [7, error]) == [failed, own]
    assert together(settle, [cancellation, error]) == [failed, own]
    assert together(settle, [cancellation, 7]) == [cancelled, cancelled]
    assert settle(ALONE, [error]) == own
    failed = "RetoolError: process 0 of 2 has failed: no space left"
    assert together(fail_once) == ["OSError: no space left", failed]


def test_a_process_that_has_ended_is_missed(together: InTwo) -> None:
    assert together(leave_early) == ["another process of this run has ended; what it said tells why", "gone"]


def test_without_torchrun_a_process_is_alone() -> None:
    with join_processes(CPU) as processes:
        assert processes == ALONE
        assert exchange(processes) == ([0, 1, 4, 9, 16], [0], {"both": 1.0, "rank0": 0.5}, 10)
        assert processes.is_writer
        model = small_model()
        assert processes.replicate(model) is model


@given(lengths=st.lists(st.integers(1, 50), max_size=20), budget=st.integers(1, 80), size=st.integers(1, 4))
def test_each_sequence_counts_in_one_process_and_all_make_as_many_passes(
    lengths: list[int], budget: int, size: int
) -> None:
    passes = [Processes(rank, size).passes(lengths, budget) for rank in range(size)]
    assert len({len(each) for each in passes}) == 1
    counted = [group for each in passes for group, weight in each if weight == 1.0]
    assert sorted(index for group in counted for index in group) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in group) <= budget or len(group) == 1 for group in counted)
    assert {weight for each in passes for _, weight in each} <= {0.0, 1.0}
    assert all(group for each in passes for group, _ in each)
    assert len(passes[0]) == -(-len(ALONE.passes(lengths, budget)) // size)


def test_the_tokens_of_a_batch_that_fits_into_one_pass_are_shared_evenly() -> None:
    lengths = [8, 7, 6, 5, 4, 3, 2, 1]
    shares = [Processes(rank, 2).passes(lengths, 100) for rank in (0, 1)]
    assert [sum(lengths[i] for i in group) for ((group, _),) in shares] == [18, 18]
