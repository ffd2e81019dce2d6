"""From a step's trajectories to an update of the weights, by whatever objective the config names.

The old log-probabilities, the centre of the clip, are the sampler's as it drew the tokens, or the learner's before the
first update; all are of the distribution that was sampled from. What has to be known before the first update (critic's
values, reference, old log-probabilities) comes from one pass without gradients, which is left out where nothing asks.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import PreTrainedModel

from retool.config.sampling import SamplingConfig
from retool.config.schema import RlConfig
from retool.errors import UsageError
from retool.learner.adapters import has_adapters, without_adapters
from retool.learner.critic import Critic
from retool.learner.distributed import ALONE, Processes
from retool.learner.logprobs import TokenScores, score
from retool.learner.objective import Objective, learnable, select
from retool.learner.optimizer import Optimizer
from retool.learner.packing import Batch, Example, make_batch
from retool.learner.trained import Trained
from retool.objectives.advantages import whiten
from retool.objectives.losses import explained_variance, value_clip
from retool.objectives.off_policy import staleness
from retool.objectives.ragged import spread
from retool.types import Author, Trajectory


@dataclass(frozen=True, slots=True)
class LearnerRecord:
    """What the learner saw, token by token: flat over the model tokens of all trajectories in the loss.

    `offsets[i]:offsets[i + 1]` are those of `ids[i]`. `logprobs` are the learner's when it first computed them: before
    the first update, or else in the update that the tokens were in. `values` is empty without a critic. Stored beside
    the trajectories, `step-N.learner.npz`.
    """

    ids: list[str]
    offsets: np.ndarray
    logprobs: np.ndarray
    values: np.ndarray
    advantages: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        return {"ids": np.array(self.ids)} | {
            name: getattr(self, name) for name in ("offsets", "logprobs", "values", "advantages")
        }


Column = list[torch.Tensor]
"""A number for each model token, one tensor a trajectory."""


@dataclass(slots=True)
class _Columns:
    """What is known about the model tokens of the trajectories that are learned from; empty where nobody asks."""

    sampled: Column
    learner: Column = field(default_factory=list)
    reference: Column = field(default_factory=list)
    values: Column = field(default_factory=list)
    advantages: Column = field(default_factory=list)
    returns: Column = field(default_factory=list)
    correction: Column = field(default_factory=list)

    def take(self, indices: Sequence[int], device: torch.device) -> dict[str, torch.Tensor | None]:
        """Each column flat, [N], for some of the trajectories; None where it is empty."""
        columns = {name: getattr(self, name) for name in self.__slots__}
        return {
            name: torch.cat([column[i] for i in indices]).to(device) if column else None
            for name, column in columns.items()
        }


class Learner:
    """Holds what learning needs beside the policy: critic, reference and the optimizer.

    `reference`, asked for by `rl.kl` alone, is the policy as it was before the first step; None: as it is now. With
    adapters it is the model without them. Several `processes` shard all of these among themselves, and each takes some
    of the micro-batches. Raises UsageError for settings that contradict each other.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        objective: Objective,
        config: RlConfig,
        sampling: SamplingConfig,
        seed: int,
        reference: PreTrainedModel | None = None,
        processes: Processes = ALONE,
    ):
        if objective.correction and config.old_logprobs == "sampler":
            raise UsageError(
                "rl.correction weighs what the learner thinks against what the sampler recorded, so it needs "
                "rl.old_logprobs=learner; with sampler the clipped ratio itself is between the two"
            )
        self.model, self.objective, self.config, self.sampling, self.seed = model, objective, config, sampling, seed
        self.processes = processes
        torch.manual_seed(seed)
        self.critic = Critic(model, config.critic.trunk == "own") if objective.needs_critic else None
        self.reference = None
        if objective.kl and not has_adapters(model):
            self.reference = (reference or copy.deepcopy(model)).eval().requires_grad_(False)
        dtype = model.dtype
        for module in (model, self.critic, self.reference):
            if module is not None:
                processes.shard(module)
        self._planned = config.epochs * config.mini_batches  # optimizer steps of one RL step
        further = []
        if self.critic:
            further = [
                (self.critic.head_parameters(), config.critic.learning_rate),
                (self.critic.trunk_parameters(), config.critic.trunk_learning_rate),
            ]
        self.optimizer = Optimizer(model, config, config.steps * self._planned, further)
        self.trained = Trained(model, self.optimizer, dtype, self.critic, processes)

    def update(self, trajectories: Sequence[Trajectory], step: int) -> tuple[dict[str, float], LearnerRecord]:
        """Learn from the trajectories of RL step `step`, counted from 1. Those that the sandbox lost, and what filters
        and masks drop, are left out. Returns metrics (means over model tokens) and the record. Raises nothing on an
        empty selection: then there is nothing to learn. Called by all processes, with the same trajectories."""
        rng = np.random.default_rng([self.seed, step])
        present = learnable(trajectories)
        kept, dropped = select(self.objective.filters, present, rng)
        compared = [present[i] for i in kept]
        learned, masked = select(self.objective.masks, compared, rng)
        metrics: dict[str, float] = {"trained": len(learned)}
        for reason, count in (dropped | masked).items():
            metrics["left_out." + reason.replace(":", "").replace(" ", "_")] = count
        if not learned:
            return metrics, LearnerRecord([], np.zeros(1, np.int64), *(np.zeros(0, np.float32),) * 3)
        self.optimizer.steps_taken = (step - 1) * self._planned  # few trajectories make fewer steps than planned

        columns = _Columns([_logprobs(trajectory) for trajectory in compared])
        examples = [Example.from_trajectory(trajectory) for trajectory in compared]
        self._evaluate(examples, columns)
        self._compare(compared, columns, learned)
        if self.objective.correction:
            metrics |= self._correct(columns)
        used = [compared[i] for i in learned]
        stale = staleness(step - 1, _versions(used)).float()
        metrics |= {"staleness_mean": float(stale.mean()), "staleness_max": float(stale.max())}
        metrics["learning_rate"] = self.optimizer.learning_rate

        first_seen: dict[int, torch.Tensor] = dict(enumerate(columns.learner))
        sums: dict[str, list[float]] = defaultdict(list)
        for _ in range(self.config.epochs):
            order = rng.permutation(learned)
            for part in np.array_split(order, min(self.config.mini_batches, len(learned))):
                for name, value in self._mini_batch(examples, columns, sorted(part.tolist()), step, first_seen).items():
                    sums[name].append(value)
        metrics |= {name: float(np.mean(values)) for name, values in sums.items()}
        metrics |= _gap([first_seen[i] for i in learned], [columns.sampled[i] for i in learned])
        if columns.values:
            values, returns = (torch.cat([column[i] for i in learned]) for column in (columns.values, columns.returns))
            metrics |= {"value_mean": float(values.mean()), "explained_variance": explained_variance(values, returns)}
        return metrics, _record(used, learned, columns, first_seen)

    @torch.no_grad()
    def _evaluate(self, examples: list[Example], columns: _Columns) -> None:
        """Fill in the columns that must be known before the first update."""
        if not (self.critic or self.objective.kl or self.config.old_logprobs == "learner"):
            return
        self.model.eval()
        found: dict[str, dict[int, torch.Tensor]] = {"learner": {}, "values": {}, "reference": {}}
        for batch, _ in self._batches(examples, range(len(examples))):
            scores = score(self.model, batch, self.sampling)
            found["learner"].update(_parts(batch, scores.logprobs_N))
            if self.critic:
                found["values"].update(_parts(batch, self.critic(batch, scores.states_ND)))
            if self.objective.kl:
                with nullcontext() if self.reference else without_adapters(self.model):
                    scores = score(self.reference or self.model, batch, self.sampling)
                found["reference"].update(_parts(batch, scores.logprobs_N))
        for name, own in found.items():
            parts = self._from_all(own)
            setattr(columns, name, [parts[index] for index in sorted(parts)])

    def _compare(self, trajectories: Sequence[Trajectory], columns: _Columns, learned: Sequence[int]) -> None:
        """Fill in advantages, and the critic's targets."""
        rewards_B = torch.tensor([trajectory.reward["total"] for trajectory in trajectories])
        names = {trajectory.group: number for number, trajectory in enumerate(trajectories)}
        groups_B = torch.tensor([names[trajectory.group] for trajectory in trajectories])
        lengths = [len(part) for part in columns.sampled]
        values_N = torch.cat(columns.values) if columns.values else None
        advantages_N, returns_N = self.objective.advantage(rewards_B, groups_B, values_N, torch.tensor(lengths))
        if self.objective.needs_critic if self.config.whiten is None else self.config.whiten:
            in_loss_B = torch.zeros(len(lengths)).index_fill_(0, torch.tensor(learned), 1.0)
            advantages_N = whiten(advantages_N, spread(in_loss_B, torch.tensor(lengths)))
        columns.advantages = list(advantages_N.split(lengths))
        columns.returns = [] if returns_N is None else list(returns_N.split(lengths))

    def _correct(self, columns: _Columns) -> dict[str, float]:
        """Fill in the weights of tokens that were drawn from another policy than the learner's."""
        lengths = [len(part) for part in columns.sampled]
        weights_N, metrics = self.objective.correction(
            torch.cat(columns.learner), torch.cat(columns.sampled), torch.tensor(lengths)
        )
        columns.correction = list(weights_N.split(lengths))
        return {f"correction.{name}": float(value) for name, value in metrics.items()}

    def _mini_batch(
        self,
        examples: list[Example],
        columns: _Columns,
        chosen: list[int],
        step: int,
        first_seen: dict[int, torch.Tensor],
    ) -> dict[str, float]:
        """One optimizer step on the `chosen` trajectories."""
        warming_up = self.critic is not None and step <= self.config.critic.warmup_steps  # steps count from 1
        self.model.train()
        lengths = [len(columns.sampled[i]) for i in chosen]
        weights = dict(zip(chosen, self.objective.aggregation(torch.tensor(lengths)).split(lengths), strict=True))
        tokens = sum(lengths)
        sums: dict[str, float] = defaultdict(float)
        seen: dict[int, torch.Tensor] = {}
        for batch, counts in self._batches(examples, chosen):
            weights_N = counts * torch.cat([weights[i] for i in batch.indices]).to(self.model.device)
            scores = score(self.model, batch, self.sampling, entropy=True)
            seen.update(_parts(batch, scores.logprobs_N))
            loss_N, parts = self._loss(batch, scores, columns.take(batch.indices, self.model.device), warming_up)
            (weights_N * loss_N).sum().backward()
            for name, part_N in parts.items():
                sums[name] += counts * float(part_N.detach().sum()) / tokens
        for index, logprobs_n in self._from_all(seen).items():
            first_seen.setdefault(index, logprobs_n)
        norm = self.optimizer.step()
        return {**self.processes.add_up(sums), "grad_norm": norm, "dropped_updates": float(not np.isfinite(norm))}

    def _loss(
        self, batch: Batch, scores: TokenScores, column: dict[str, torch.Tensor | None], warming_up: bool
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of each token [N], and what it is made of."""
        old_N = column["sampled"] if self.config.old_logprobs == "sampler" else column["learner"]
        policy_N, parts = self.objective.loss(scores.logprobs_N, old_N, column["advantages"], batch.model_lengths_B)
        if column["correction"] is not None:
            policy_N = column["correction"] * policy_N
        parts = {"policy_loss": policy_N, "entropy": scores.entropies_N, **parts}
        loss_N = policy_N
        if self.config.entropy_coefficient:  # a gradient of it costs passes of its own
            loss_N = loss_N - self.config.entropy_coefficient * scores.entropies_N
        if column["reference"] is not None:
            parts["kl_reference"] = self.objective.kl(scores.logprobs_N, column["reference"])
            loss_N = loss_N + self.objective.kl_coefficient * parts["kl_reference"]
        if self.critic:
            states_ND = scores.states_ND.detach() if warming_up else scores.states_ND
            value_N = self.critic(batch, states_ND)
            parts["value_loss"] = value_clip(value_N, column["values"], column["returns"], self.config.critic.clip)
            loss_N = self.config.critic.loss_coefficient * parts["value_loss"] + (0.0 if warming_up else loss_N)
        return loss_N, parts

    def _batches(self, examples: list[Example], chosen: Sequence[int]) -> Iterator[tuple[Batch, float]]:
        """The micro-batches of this process, and how much each counts: 1, or 0 where it only keeps step with others."""
        lengths = [len(examples[i]) for i in chosen]
        for group, counts in self.processes.passes(lengths, self.config.micro_batch_tokens):
            yield make_batch(examples, [chosen[i] for i in group], self.model.device), counts

    def _from_all(self, own: dict[int, torch.Tensor]) -> dict[int, torch.Tensor]:
        """What the processes have found out about trajectories, by index; of what several have, the first's."""
        found = self.processes.gather({index: part.numpy() for index, part in own.items()})
        return {index: torch.from_numpy(part) for each in reversed(found) for index, part in each.items()}


def _parts(batch: Batch, column_N: torch.Tensor) -> list[tuple[int, torch.Tensor]]:
    """A number for each token, cut into trajectories: their indices and numbers."""
    parts = column_N.detach().cpu().split(batch.model_lengths_B.tolist())
    return list(zip(batch.indices, parts, strict=True))


def _logprobs(trajectory: Trajectory) -> torch.Tensor:
    """The sampler's log-probabilities of the model tokens, in order."""
    return torch.tensor([value for span in trajectory.spans for value in span.logprobs or ()])


def _versions(trajectories: Sequence[Trajectory]) -> torch.Tensor:
    """The weights that wrote each model token."""
    spans = [span for trajectory in trajectories for span in trajectory.spans if span.author is Author.MODEL]
    return torch.tensor([version for span in spans for version in span.versions()])


def _gap(learner: Column, sampled: Column) -> dict[str, float]:
    """How far learner and sampler are apart: an estimate of KL(sampler ‖ learner), and the largest difference."""
    gap = torch.cat(learner) - torch.cat(sampled)
    return {"kl_sampler_learner": float(-gap.mean()), "logprob_gap_max": float(gap.abs().max())}


def _record(
    used: Sequence[Trajectory], learned: Sequence[int], columns: _Columns, first_seen: dict[int, torch.Tensor]
) -> LearnerRecord:
    offsets = np.cumsum([0, *(len(columns.sampled[i]) for i in learned)])
    logprobs = torch.cat([first_seen[i] for i in learned]).numpy()
    values = torch.cat([columns.values[i] for i in learned]).numpy() if columns.values else np.zeros(0, np.float32)
    advantages = torch.cat([columns.advantages[i] for i in learned]).numpy()
    return LearnerRecord([trajectory.id for trajectory in used], offsets, logprobs, values, advantages)
