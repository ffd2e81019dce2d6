"""PPO with a critic: from a step's trajectories to an update of the weights.

The old log-probabilities are the sampler's, recorded as the tokens were drawn; they and the learner's are of the same
distribution. The critic's old values come from one pass without gradients before the first update.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from retool.config.schema import PpoConfig, RlConfig, SamplingConfig
from retool.learner.batching import Batch, Example, make_batch, split_by_tokens
from retool.learner.logprobs import score
from retool.learner.optimizer import Optimizer
from retool.learner.policy import ValueHead
from retool.objectives.advantages import gae, whiten
from retool.objectives.losses import explained_variance, ppo_clip, value_clip
from retool.types import Author, StopReason, Trajectory


@dataclass(frozen=True, slots=True)
class LearnerRecord:
    """What the learner saw, token by token: flat over the model tokens of all trajectories in the loss.

    `offsets[i]:offsets[i + 1]` are those of `ids[i]`. Stored beside the trajectories, `step-N.learner.npz`.
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


class PpoLearner:
    """Holds what PPO needs beside the policy: the critic and the optimizer of both."""

    def __init__(self, model: PreTrainedModel, config: RlConfig, sampling: SamplingConfig, pad_id: int, seed: int):
        self.model, self.config, self.sampling, self.pad_id, self.seed = model, config, sampling, pad_id, seed
        torch.manual_seed(seed)
        self.critic = ValueHead(model.config.get_text_config().hidden_size).to(model.device)
        self._planned = config.ppo.epochs * config.ppo.mini_batches  # optimizer steps of one RL step
        self.optimizer = Optimizer(
            model, config, config.steps * self._planned, self.critic, config.critic_learning_rate
        )

    def update(self, trajectories: Sequence[Trajectory], step: int) -> tuple[dict[str, float], LearnerRecord]:
        """Learn from the trajectories of RL step `step`, counted from 1. Those that the sandbox lost are left out.
        Returns metrics (means over model tokens) and the record. Raises nothing on an empty selection: then there is
        nothing to learn."""
        used = [t for t in trajectories if t.stop is not StopReason.SANDBOX and t.tokens(Author.MODEL)]
        if not used:
            return {"trained": 0}, LearnerRecord([], np.zeros(1, np.int64), *(np.zeros(0, np.float32),) * 3)
        self.optimizer.steps_taken = (step - 1) * self._planned  # few trajectories make fewer steps than planned
        examples = [Example.from_trajectory(trajectory) for trajectory in used]
        sampled = [_logprobs(trajectory) for trajectory in used]
        rewards = [trajectory.reward["total"] for trajectory in used]

        logprobs, values = self._evaluate(examples)
        advantages, returns = _estimate(rewards, values, self.config.ppo)
        gap = torch.cat(logprobs) - torch.cat(sampled)
        metrics = {
            "trained": len(used),
            "kl_sampler_learner": float(-gap.mean()),
            "logprob_gap_max": float(gap.abs().max()),
            "value_mean": float(torch.cat(values).mean()),
            "explained_variance": explained_variance(torch.cat(values), torch.cat(returns)),
            "learning_rate": self.optimizer.learning_rate,
        }
        sums: dict[str, float] = defaultdict(float)
        rng = np.random.default_rng([self.seed, step])
        updates = 0
        for _ in range(self.config.ppo.epochs):
            order = rng.permutation(len(used))
            for part in np.array_split(order, min(self.config.ppo.mini_batches, len(used))):
                chosen = sorted(int(i) for i in part)
                fields = [[column[i] for i in chosen] for column in (sampled, values, advantages, returns)]
                for name, value in self._mini_batch([examples[i] for i in chosen], *fields, step=step).items():
                    sums[name] += value
                updates += 1
        metrics |= {name: total / updates for name, total in sums.items()}
        offsets = np.cumsum([0, *(len(part) for part in logprobs)])
        flat = (torch.cat(part).cpu().numpy() for part in (logprobs, values, advantages))
        return metrics, LearnerRecord([trajectory.id for trajectory in used], offsets, *flat)

    @torch.no_grad()
    def _evaluate(self, examples: list[Example]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The learner's log-probabilities and the critic's values for the model tokens of each example."""
        self.model.eval()
        logprobs: list[torch.Tensor] = [torch.empty(0)] * len(examples)
        values = list(logprobs)
        for batch in self._batches(examples):
            scores = score(self.model, batch, self.sampling)
            lengths = batch.targets_BT.sum(1).tolist()
            for index, logprob_n, value_n in zip(
                batch.indices,
                scores.logprobs_N.split(lengths),
                self.critic(scores.states_ND).split(lengths),
                strict=True,
            ):
                logprobs[index], values[index] = logprob_n.cpu(), value_n.cpu()
        return logprobs, values

    def _mini_batch(
        self,
        examples: list[Example],
        sampled: list[torch.Tensor],
        old_values: list[torch.Tensor],
        advantages: list[torch.Tensor],
        returns: list[torch.Tensor],
        *,
        step: int,
    ) -> dict[str, float]:
        """One optimizer step; losses are means over the model tokens of the mini-batch."""
        ppo = self.config.ppo
        warming_up = step <= self.config.critic_warmup_steps  # steps count from 1
        self.model.train()
        tokens = sum(len(part) for part in sampled)
        sums: dict[str, float] = defaultdict(float)
        for batch in self._batches(examples):
            old_N, old_values_N, advantages_N, returns_N = (
                torch.cat([column[i] for i in batch.indices]).to(self.model.device)
                for column in (sampled, old_values, advantages, returns)
            )
            scores = score(self.model, batch, self.sampling, entropy=True)
            policy_N, extra = ppo_clip(scores.logprobs_N, old_N, advantages_N, ppo.clip_low, ppo.clip_high)
            states_ND = scores.states_ND.detach() if warming_up else scores.states_ND
            value_N = value_clip(self.critic(states_ND), old_values_N, returns_N, ppo.value_clip)
            loss = ppo.value_coefficient * value_N.sum()
            if not warming_up:
                loss = loss + policy_N.sum() - ppo.entropy_coefficient * scores.entropies_N.sum()
            (loss / tokens).backward()
            parts = {"policy_loss": policy_N, "value_loss": value_N, "entropy": scores.entropies_N, **extra}
            for name, part_N in parts.items():
                sums[name] += float(part_N.detach().sum()) / tokens
        return {**sums, "grad_norm": self.optimizer.step()}

    def _batches(self, examples: list[Example]) -> list[Batch]:
        groups = split_by_tokens([len(example) for example in examples], self.config.micro_batch_tokens)
        return [make_batch(examples, indices, self.pad_id, self.model.device) for indices in groups]

    def state_dict(self) -> dict[str, object]:
        return {"critic": self.critic.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.critic.load_state_dict(state["critic"])
        self.optimizer.load_state_dict(state["optimizer"])


def _logprobs(trajectory: Trajectory) -> torch.Tensor:
    """The sampler's log-probabilities of the model tokens, in order."""
    return torch.tensor([value for span in trajectory.spans for value in span.logprobs or ()])


def _estimate(
    rewards: list[float], values: list[torch.Tensor], ppo: PpoConfig
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Advantages and returns of each trajectory's model tokens."""
    values_BT = torch.nn.utils.rnn.pad_sequence(values, batch_first=True)
    lengths = torch.tensor([len(part) for part in values])
    mask_BT = torch.arange(values_BT.shape[1]) < lengths[:, None]
    advantages_BT, returns_BT = gae(torch.tensor(rewards), values_BT, mask_BT, ppo.gamma, ppo.gae_lambda)
    if ppo.whiten:
        advantages_BT = whiten(advantages_BT, mask_BT)
    return [row[:n] for row, n in zip(advantages_BT, lengths, strict=True)], [
        row[:n] for row, n in zip(returns_BT, lengths, strict=True)
    ]
