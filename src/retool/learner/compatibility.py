"""Which models the learner can train: those that say the same of two sequences in one row as of each by itself."""

from __future__ import annotations

import math

import torch
from transformers import PreTrainedModel

from retool.errors import RetoolError, UsageError, first_line
from retool.learner.logprobs import score
from retool.learner.packing import Example, make_batch

_CHECK_TOKENS = (9, 5)
_LONGEST_CHECK_TOKENS = 1100  # where that many are needed to see beyond a sliding window
_GAP, _GAP_IN_HALF_PRECISION = 1e-3, 5e-2  # of what the model adds to a uniform distribution


@torch.no_grad()
def check_learnable(model: PreTrainedModel) -> None:
    """Refuse a model whose layers carry something from one sequence of a row to the next (linear attention, state
    spaces, convolutions), or that does something unknown to its logits: another model would be trained than the one
    that is sampled from.

    Where the model sees a sliding window, the first text is longer than it, unless that is too long for a check.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if not kinds <= {"full_attention", "sliding_attention"}:
        raise UsageError(f"{_refusal(model)}: it has layers of type {sorted(kinds)}")
    window = getattr(config, "sliding_window", None) or 0
    first, second = _CHECK_TOKENS
    first += window if window + first <= _LONGEST_CHECK_TOKENS else 0
    ids = [[(7 * n + start) % config.vocab_size for n in range(length)] for start, length in ((1, first), (4, second))]
    batch = make_batch([Example(part, [True] * len(part)) for part in ids], [0, 1], model.device)
    was_training = model.training
    model.eval()
    try:
        packed_N = score(model, batch).logprobs_N
        apart_N = torch.cat([_apart(model, part) for part in ids])
    except (AttributeError, IndexError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = first_line(error)
        raise UsageError(f"{_refusal(model)} ({type(error).__name__}: {reason})") from error
    finally:
        model.train(was_training)
    if not apart_N.isfinite().all():
        raise RetoolError(
            "the model's log-probabilities are NaN or infinite: its weights are not finite, or numbers overflow; take "
            "another checkpoint, or model.dtype=float32"
        )
    uniform = -math.log(config.vocab_size)
    gap = float((packed_N - apart_N).norm() / (apart_N - uniform).norm())
    if not gap < (_GAP if model.dtype == torch.float32 else _GAP_IN_HALF_PRECISION):
        raise UsageError(f"{_refusal(model)}: what it says differs by a share of {gap:.1g} from what it says apart")


def _apart(model: PreTrainedModel, ids: list[int]) -> torch.Tensor:
    """The model's own log-probabilities of all tokens but the first."""
    ids_1T = torch.tensor([ids], device=model.device)
    logprobs_TV = model(input_ids=ids_1T, use_cache=False).logits[0, :-1].float().log_softmax(-1)
    return logprobs_TV.gather(-1, ids_1T[0, 1:, None]).squeeze(-1)


def _refusal(model: PreTrainedModel) -> str:
    return (
        f"the learner reads sequences end to end, and model type {model.config.model_type!r} does not work so; take a "
        "decoder-only model with plain attention through transformers' attention interface, such as 'llama'"
    )
