"""One RL update of a policy: GRPO's loss on sequences of fixed lengths, backward, clipping, AdamW.

Ids are drawn once from the vocabulary, advantages are +1 and −1 in turn; neither side computes old log-probabilities
while it is timed, and the ratio is about 1. That both sides compute the same is seen in the gradient's norm.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from retool.config.sampling import SamplingConfig
from retool.config.schema import ModelConfig, RlConfig
from retool.learner.learner import Learner
from retool.learner.logprobs import score
from retool.learner.objective import make_objective
from retool.learner.packing import Example, make_batch
from retool.learner.policy import load_policy
from retool.rollout.agent import Task
from retool.types import Author, Problem, Span, Trajectory
from rollout import peer

LENGTHS = Path(__file__).with_name("lengths.json")
LEARNING_RATE = 1e-6
INSTALL = 'python -m venv venv-trl && venv-trl/bin/pip install "trl==1.16.*"'


@dataclass(frozen=True, slots=True)
class Sequences:
    """Prompts and responses as ids; all tokens of a response are the model's."""

    prompts: list[list[int]]
    responses: list[list[int]]
    advantages: list[float]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.prompts)) + sum(map(len, self.responses))


def draw_sequences(vocabulary: int, repeats: int = 1) -> Sequences:
    """The lengths of the file `repeats` times over, 4,615 tokens each time."""
    generator = torch.Generator().manual_seed(0)
    parts = [
        [torch.randint(vocabulary, (length,), generator=generator).tolist() for length in pair]
        for pair in json.loads(LENGTHS.read_text(encoding="utf-8")) * repeats
    ]
    prompts, responses = zip(*parts, strict=True)
    return Sequences(list(prompts), list(responses), [1.0 - 2.0 * (i % 2) for i in range(len(parts))])


def trl_peer(
    python: Path | None,
    model: Path,
    sequences: Sequences,
    micro_batch: int,
    threads: int,
    device: str = "cpu",
    dtype: str = "float32",
) -> peer.Peer | None:
    """TRL's side in its own Python, which makes an update whenever it is asked; None, with a word, without one."""
    if python is None:
        peer.say(f"trl: not measured; {INSTALL}, then --trl-python venv-trl/bin/python")
        return None
    setup = {
        "model": str(model),
        "prompts": sequences.prompts,
        "responses": sequences.responses,
        "advantages": sequences.advantages,
        "learning_rate": LEARNING_RATE,
        "micro_batch": micro_batch,
        "threads": threads,
        "device": device,
        "dtype": dtype,
    }
    trl = peer.Peer(python, Path(__file__).with_name("trl_update.py"), threads, setup)
    peer.say(f"TRL's side: {trl.facts}")
    return trl


class Update:
    """ReTool's: what `retool rl` calls once a step, with the rewards of one group as advantages."""

    def __init__(self, folder: Path, budget: int, device: str = "cpu", dtype: str = "float32"):
        self.model, _ = load_policy(ModelConfig(path=str(folder), device=device, dtype=dtype))
        config = RlConfig(
            algorithm="dr_grpo",
            aggregation="sequence_mean",
            learning_rate=LEARNING_RATE,
            mini_batches=1,
            micro_batch_tokens=budget,
        )
        self._learner = Learner(self.model, make_objective(config, max_tokens=1), config, SamplingConfig(), seed=0)

    @property
    def matrix_parameters(self) -> int:
        """Parameters that multiply each token: all but the embedding's look-up, a tied head counted once."""
        model = self.model
        tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
        return sum(p.numel() for p in model.parameters()) - (0 if tied else model.get_input_embeddings().weight.numel())

    def record(self, sequences: Sequences) -> list[Trajectory]:
        """The sequences as a sampler with these weights would have recorded them."""
        rows = zip(sequences.prompts, sequences.responses, sequences.advantages, strict=True)
        return [self._trajectory(number, *row) for number, row in enumerate(rows)]

    @torch.no_grad()
    def _trajectory(self, number: int, prompt: list[int], response: list[int], reward: float) -> Trajectory:
        example = Example(prompt + response, [False] * len(prompt) + [True] * len(response))
        logprobs = score(self.model, make_batch([example], [0], self.model.device)).logprobs_N.tolist()
        task = Task(Problem("drawn", "", "", "drawn"), prompt, "benchmark", 0, 1, number, "drawn")
        trajectory = task.begin("text")
        trajectory.spans = [Span(Author.MODEL, response, "", logprobs)]
        trajectory.reward = {"total": reward}
        return trajectory

    def run(self, trajectories: Sequence[Trajectory]) -> tuple[float, float]:
        """Seconds, and the gradient's norm."""
        began = time.perf_counter()
        metrics, _ = self._learner.update(trajectories, 1)  # which reads the norm, so that a GPU is done with it
        return time.perf_counter() - began, metrics["grad_norm"]
