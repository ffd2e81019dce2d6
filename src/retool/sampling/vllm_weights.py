"""The learner's weights as files that a vLLM server loads.

The output head is always written apart from the embedding, and so is the model that a server is started with: where
the two are one tensor, vLLM on CPUs repacks the head when it loads a model, and replacing the embedding later leaves
the head what it was, without a word.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import PreTrainedModel

from retool.errors import RetoolError
from retool.files import cannot_write

_SHARD_BYTES = 1 << 31  # of weights that are held in memory at a time


def tied_weights(model: PreTrainedModel) -> dict[str, str]:
    """Names of weights that `named_parameters` leaves out, and the names of those that they are one tensor with."""
    return dict(model.all_tied_weights_keys)


def write_weights(folder: Path, weights: Iterable[tuple[str, torch.Tensor]], tied: Mapping[str, str]) -> None:
    """Write `weights`, and copies of them under the names that are `tied` to theirs, as safetensors into `folder`.

    Raises RetoolError if the folder cannot be written to, or if the disk is full.
    """
    try:
        folder.mkdir(parents=True)
        shard: dict[str, torch.Tensor] = {}
        shards = size = 0
        for name, weight in weights:
            for written_as in [name, *(alias for alias, source in tied.items() if source == name)]:
                shard[written_as] = weight.detach().to("cpu", copy=True).contiguous()
                size += weight.nbytes
            if size >= _SHARD_BYTES:
                save_file(shard, folder / f"model-{shards:05d}.safetensors")
                shard, shards, size = {}, shards + 1, 0
        if shard:
            save_file(shard, folder / f"model-{shards:05d}.safetensors")
    except OSError as error:
        raise cannot_write(folder, error) from error
    except SafetensorError as error:  # what it raises where the disk is full
        raise RetoolError(f"could not write weights to {folder}: {error}; make room or name another place") from error


def write_model(folder: Path, model: PreTrainedModel) -> None:
    """Write a model without its tokenizer, with an output head of its own. Raises RetoolError as `write_weights`."""
    write_weights(folder, model.named_parameters(), tied_weights(model))
    config = copy.deepcopy(model.config)
    for part in (config, config.get_text_config()):
        part.tie_word_embeddings = False
    config.save_pretrained(folder)
