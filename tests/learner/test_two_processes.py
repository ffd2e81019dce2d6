"""Two processes that train one model make the updates that one makes, and what they save any number can go on from."""

from __future__ import annotations

import asyncio
import importlib.util
import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
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
from retool.errors import UsageError
from retool.learner.adapters import add_adapters, without_adapters
from retool.learner.critic import Critic
from retool.learner.distributed import Processes, join_processes, load_shards, save_model, save_shards, unsharded
from retool.learner.logprobs import score
from retool.learner.optimizer import Optimizer
from retool.learner.packing import Example, make_batch
from retool.sampling.engine import Engine
from retool.sampling.sampler import SamplingParams

CPU = torch.device("cpu")
LENGTHS = (9, 14, 19, 24, 29, 34, 39)
needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")


def example(length: int) -> Example:
    return Example([9, *range(40, 40 + length - 1)], [False] * 4 + [True] * (length - 4))


def small_model(hidden: int = 32) -> PreTrainedModel:
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
    return AutoModelForCausalLM.from_config(config)


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

    def __post_init__(self) -> None:
        self.model = small_model(self.hidden)
        self.critic = Critic(self.model, self.own_trunk)
        if self.lora:
            add_adapters(self.model, LoraConfig(rank=4), seed=0)
        self.processes.shard(self.model, self.dtype)
        self.processes.shard(self.critic)
        self.modules = {"policy": self.model, "critic": self.critic}
        config = SftConfig(optimizer=self.optimizer, learning_rate=3e-3, max_grad_norm=0.5)
        further = [(self.critic.head_parameters(), 1e-2), (self.critic.trunk_parameters(), 1e-3)]
        self.steps = Optimizer(self.model, config, 100, further)

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

    def state(self) -> list[np.ndarray]:
        """All weights and moments, whole, and the number of steps."""
        tensors = [parameter.detach() for module in self.modules.values() for parameter in module.parameters()]
        for state in self.steps.state_dict()["optimizers"].values():
            tensors += [each for moments in state["state"].values() for each in moments.values()]
        tensors.append(torch.tensor(self.steps.steps_taken))
        return [(each.full_tensor() if isinstance(each, DTensor) else each).float().numpy().copy() for each in tensors]


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


def train_and_save(processes: Processes, folder: Path, **settings: Any) -> tuple[list[np.ndarray], list[Any]]:
    """The state that is saved after two steps, and two more steps."""
    training = Training(processes, **settings)
    training.train(2)
    save_shards(folder, training.modules, training.steps)
    return training.state(), training.train(2)


def load_and_save(
    processes: Processes, folder: Path, again: Path | None = None, **settings: Any
) -> tuple[list[np.ndarray], list[Any]]:
    """The state that is loaded, and two more steps. It is saved `again` before them."""
    training = Training(processes, **settings)
    load_shards(folder, training.modules, training.steps)
    state = training.state()
    if again:
        save_shards(again, training.modules, training.steps)
    return state, training.train(2)


def load_another(processes: Processes, folder: Path) -> str:
    training = Training(processes, hidden=64)
    try:
        load_shards(folder, training.modules, training.steps)
    except UsageError as error:
        return str(error)
    return "loaded"


def write_and_sample(processes: Processes, folder: Path, **settings: Any) -> tuple[list[list[int]], float]:
    """Greedy tokens from a sharded model, of which one process samples more than the other, and the next loss."""
    training = Training(processes, **settings)
    training.train(3)
    save_model(training.model, folder, training.dtype, processes)
    with unsharded(training.model):
        tokens = [greedy(training.model, first) for first in ((1,), (2, 3))[processes.rank]]
    own = [tokens] if processes.rank == 0 else [[each] for each in tokens]
    everyone = [each for part in processes.gather(own) for tokens in part for each in tokens]
    return everyone, training.step()[0]


def exchange(processes: Processes) -> tuple[list[int], list[int], dict[str, float]]:
    squares = processes.gather_parts([item**2 for item in processes.part(range(5))])
    found = processes.gather(processes.rank)
    processes.wait()
    return squares, found, processes.add_up({"both": 1.0, f"rank{processes.rank}": 0.5})


# How they are started


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def as_process(rank: int, size: int, port: int, function: Callable, args: tuple, settings: dict) -> Any:
    torch.set_num_threads(1)
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    try:
        with join_processes(CPU) as processes:
            return function(processes, *args, **settings)
    finally:
        for name in names:
            del os.environ[name]


@pytest.fixture(scope="module")
def in_two() -> Iterator[Callable]:
    """Runs a function in two processes at once, each of which keeps its rank; what it returned in each."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as first, ProcessPoolExecutor(1, context) as second:

        def run(function: Callable, *args: Any, **settings: Any) -> list[Any]:
            pools, port = (first, second), free_port()
            parts = [pool.submit(as_process, n, 2, port, function, args, settings) for n, pool in enumerate(pools)]
            return [part.result(timeout=120) for part in parts]

        yield run


def in_one(function: Callable, *args: Any, **settings: Any) -> Any:
    """Runs it here, as torchrun starts a single process."""
    return as_process(0, 1, free_port(), function, args, settings)


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
def test_two_processes_make_the_losses_of_one(in_two: Callable, settings: dict[str, Any], later: float) -> None:
    expected = np.array(train(Processes(), 10, **settings))
    first, second = (np.array(each) for each in in_two(train, 10, **settings))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(first[:, 0], expected[:, 0], atol=later)
    assert expected[-1, 0] < expected[0, 0] - 0.1
    assert expected[0, 1] > 0.5  # the norm over all shards decides: gradients are clipped


@needs_peft
def test_the_reference_of_a_sharded_policy_is_the_policy_without_its_adapters(in_two: Callable) -> None:
    untrained = score(small_model(), make_batch([example(20)], [0], CPU)).logprobs_N.detach().numpy()
    _, expected = compare_with_reference(Processes())
    for reference, steps in in_two(compare_with_reference):
        np.testing.assert_allclose(reference, untrained, atol=1e-6)
        np.testing.assert_allclose(steps, expected, rtol=1e-5)


def test_what_two_saved_one_goes_on_from_and_two_again(in_two: Callable, tmp_path: Path) -> None:
    two, one = tmp_path / "two", tmp_path / "one"
    saved, went_on = in_two(train_and_save, two)[0]
    loaded, alone = in_one(load_and_save, two, one)
    again, together = in_two(load_and_save, one)[0]
    np.testing.assert_equal(loaded, saved)
    np.testing.assert_equal(again, saved)
    np.testing.assert_array_equal(together, went_on)
    np.testing.assert_allclose(alone, went_on, rtol=1e-5)


@pytest.mark.parametrize(
    "settings", [{"optimizer": "muon", "own_trunk": True}, pytest.param({"lora": True}, marks=needs_peft)], ids=str
)
def test_every_kind_of_training_goes_on_from_its_shards(
    in_two: Callable, tmp_path: Path, settings: dict[str, Any]
) -> None:
    saved, went_on = in_two(train_and_save, tmp_path, **settings)[0]
    loaded, resumed = in_two(load_and_save, tmp_path, **settings)[0]
    np.testing.assert_equal(loaded, saved)
    np.testing.assert_array_equal(resumed, went_on)


def test_shards_of_another_model_are_refused(in_two: Callable, tmp_path: Path) -> None:
    in_two(train_and_save, tmp_path / "shards")
    for message in in_two(load_another, tmp_path / "shards"):
        assert "go on with the settings that it was made with" in message and "size mismatch" in message.lower()


@pytest.mark.parametrize(
    "settings", [{}, {"dtype": torch.bfloat16}, pytest.param({"lora": True}, marks=needs_peft)], ids=str
)
def test_a_sharded_model_is_written_and_sampled_whole(
    in_two: Callable, tmp_path: Path, settings: dict[str, Any]
) -> None:
    (tokens, loss), (_, other) = in_two(write_and_sample, tmp_path, **settings)
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert model.dtype is settings.get("dtype", torch.float32)
    assert tokens == [greedy(model, first) for first in (1, 2, 3)]
    assert loss == other < train(Processes(), 1)[0][0]  # training goes on where it was


def test_processes_tell_each_other_what_they_have(in_two: Callable) -> None:
    for squares, ranks, sums in in_two(exchange):
        assert squares == [0, 1, 4, 9, 16]
        assert ranks == [0, 1]
        assert sums == {"both": 2.0, "rank0": 0.5, "rank1": 0.5}


def test_without_torchrun_a_process_is_alone() -> None:
    with join_processes(CPU) as processes:
        assert processes == Processes()
        assert exchange(processes) == ([0, 1, 4, 9, 16], [0], {"both": 1.0, "rank0": 0.5})
        assert processes.is_writer


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
    assert len(passes[0]) == -(-len(Processes().passes(lengths, budget)) // size)


def test_the_tokens_of_a_batch_that_fits_into_one_pass_are_shared_evenly() -> None:
    lengths = [8, 7, 6, 5, 4, 3, 2, 1]
    shares = [Processes(rank, 2).passes(lengths, 100) for rank in (0, 1)]
    assert [sum(lengths[i] for i in group) for ((group, _),) in shares] == [18, 18]
