"""Which models the engine can hold: what their config says, and whether they say the same through its cache."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from retool.errors import RetoolError, UsageError, first_line
from retool.sampling.scheduler import Row

NOT_FINITE = (
    "the model's logits are NaN or infinite: training has diverged, or numbers overflow; go back to an earlier "
    "checkpoint with a lower learning rate, or take model.dtype=float32"
)
_CHECK_TOKENS = 6  # read with and without the cache
_LONGEST_CHECK_TOKENS = 1100  # where that many are needed to see beyond a sliding window


def check_config(model: PreTrainedModel) -> None:
    """Refuse models by what their config says of their attention; the rest is for `check_logits` to find out."""
    config = model.config.get_text_config()
    name = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise UsageError(f"model type {name!r} is an encoder-decoder; ReTool needs a decoder-only language model")
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if not kinds <= {"full_attention", "sliding_attention"}:
        raise UsageError(
            f"model type {name!r} has layers of type {sorted(kinds)}; the engine holds attention caches only"
        )


@torch.inference_mode()
def check_logits(
    model: PreTrainedModel, read: Callable[[list[Row], list[list[int]]], torch.Tensor], capacity: int
) -> None:
    """Refuse a model that says something else through the cache than without one, before it is sampled wrongly.

    `read` appends ids to rows and returns the logits after them, [N, V]. Where the model sees a sliding window, the
    text is longer than the window, unless that is too long for a check or longer than any row.
    """
    model.eval()
    window = getattr(model.config.get_text_config(), "sliding_window", None) or 0
    length = min(capacity, window + _CHECK_TOKENS if window + _CHECK_TOKENS <= _LONGEST_CHECK_TOKENS else _CHECK_TOKENS)
    vocabulary = model.config.get_text_config().vocab_size
    ids, row = [n % vocabulary for n in range(length)], Row(index=0)
    try:
        read([row], [ids[:-1]])
        ours_V = read([row], [ids[-1:]])[0].float()
        plain_V = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0, -1].float()
    except (AttributeError, IndexError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(f"{_refusal(model)} ({type(error).__name__}: {first_line(error)})") from error
    if not plain_V.isfinite().all():
        raise RetoolError(NOT_FINITE)
    gap = float((ours_V - plain_V).norm() / plain_V.norm())
    if not gap < (1e-3 if model.dtype == torch.float32 else 5e-2):
        raise UsageError(f"{_refusal(model)} (the logits differ by a share of {gap:.1g})")


@torch.inference_mode()
def rows_are_alike(step: Callable[[int, int], torch.Tensor], vocabulary: int, capacity: int) -> bool:
    """Whether a text has the same logits in every row, to the last bit.

    It need not: libraries multiply blocks of rows, and what remains by other means that sum up in another order.
    `step` feeds an id at a position to all R rows and returns the logits after it, [R, V].
    """
    length = min(capacity, _CHECK_TOKENS)
    steps = (step(vocabulary * (2 * n + 1) // (2 * length), n) for n in range(length))
    return all(bool((logits_RV == logits_RV[0]).all()) for logits_RV in steps)


def end_ids(model: PreTrainedModel) -> frozenset[int]:
    """What generation_config.json lists: one id, several (Qwen: <|im_end|> and <|endoftext|>), or none."""
    listed = getattr(model.generation_config, "eos_token_id", None)
    return frozenset([listed] if isinstance(listed, int) else listed or ())


def _refusal(model: PreTrainedModel) -> str:
    return (
        f"model type {model.config.model_type!r} does not work with the engine's KV cache; take a decoder-only model "
        "with plain attention over keys and values through transformers' attention interface, such as 'llama'"
    )
