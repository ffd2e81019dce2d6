"""What each token's loss weighs. Kind "aggregation": from the lengths of a whole mini-batch to weights [N], so that

    loss = Σ weights_N · loss_N

and this sum may be taken over micro-batches of whole trajectories in any split: cut the weights as the tokens are cut,
add the gradients up, divide by nothing. With `token_mean` a token weighs less in a mini-batch of long trajectories,
with `sequence_mean` in a long trajectory, with `constant` nowhere.
"""

from __future__ import annotations

import torch

from retool.objectives.ragged import spread
from retool.objectives.registry import register


@register("aggregation", "token_mean")
def token_mean(lengths_B: torch.Tensor) -> torch.Tensor:
    """1 / Σ lengths: every token of the mini-batch counts the same (DAPO, arXiv 2503.14476, eq. 12)."""
    return spread(1.0 / lengths_B.sum().clamp(min=1).float().expand(len(lengths_B)), lengths_B)


@register("aggregation", "sequence_mean")
def sequence_mean(lengths_B: torch.Tensor) -> torch.Tensor:
    """The mean over trajectories of the means over their tokens (GRPO, arXiv 2402.03300, eq. 3). A trajectory without
    tokens has no mean and is not counted."""
    counted = (lengths_B > 0).sum().clamp(min=1)
    return spread(1.0 / (counted * lengths_B.clamp(min=1)).float(), lengths_B)


@register("aggregation", "constant")
def constant(lengths_B: torch.Tensor, *, max_tokens: int) -> torch.Tensor:
    """1 / (B · L_max): a token counts the same in a short and in a long trajectory, and in every mini-batch of B
    (Dr.GRPO, arXiv 2503.20783). `max_tokens`, L_max, is the longest response that the rollout allows."""
    weights_B = torch.ones_like(lengths_B, dtype=torch.float32) / (max(len(lengths_B), 1) * max_tokens)
    return spread(weights_B, lengths_B)
