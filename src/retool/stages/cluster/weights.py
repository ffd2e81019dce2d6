"""Weights on their way from the learners to the samplers, and how it is made sure that they have arrived.

They travel as a few large shards in Ray's object store: shared memory within a node, where samplers read what the
learner wrote without a copy, and one transfer a node between them; or, with `cluster.weights=files`, as safetensors in
a folder that all see. Of adapters only these travel. A digest is taken of what the learner has, and again of what the
sampler holds after it has taken them over.
"""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import ray
import torch
from safetensors.torch import load_file
from torch import nn

from retool.errors import RetoolError
from retool.sampling.vllm_weights import write_weights
from retool.stages.cluster.messages import Published

SHARD_BYTES = 1 << 30

Shard = dict[str, tuple[str, tuple[int, ...], np.ndarray]]
"""By name: data type, shape, and the bytes."""


def publish(version: int, weights: Iterable[tuple[str, torch.Tensor]], folder: Path | None) -> Published:
    """Leave weights where samplers find them; of a `folder`, in one of their own in it, where the version before the
    last one goes. Raises RetoolError if the folder cannot be written to."""
    digest, own = _Digest(), folder and folder / f"version-{version}"
    if own:
        shutil.rmtree(own, ignore_errors=True)
        write_weights(own, digest.of_all(weights), {})
        for old in folder.glob("version-*"):
            if int(old.name.removeprefix("version-")) not in (version, version - 1):
                shutil.rmtree(old, ignore_errors=True)
        return Published(version, digest.hex(), (), str(own))
    refs = tuple(ray.put(shard) for shard in to_shards(digest.of_all(weights)))
    return Published(version, digest.hex(), refs)


async def take_over(published: Published, model: nn.Module) -> None:
    """Copy weights into `model`, all at once: nothing runs in this event loop while the model is half-way.

    Raises RetoolError if what the model holds then is not what was published.
    """
    if published.folder:
        files = sorted(Path(published.folder).glob("*.safetensors"))
        shards = [load_file(file) for file in files]
    else:
        shards = [dict(from_shard(await ref)) for ref in published.shards]
    copy_in(model, {name: weight for shard in shards for name, weight in shard.items()}, published)


@torch.no_grad()
def copy_in(model: nn.Module, weights: Mapping[str, torch.Tensor], published: Published) -> None:
    """The second half of `take_over`."""
    own = dict(model.named_parameters())
    digest = _Digest()
    for name, weight in weights.items():
        if name not in own or own[name].shape != weight.shape:
            raise RetoolError(f"the learner has weights {name} of shape {list(weight.shape)}, the sampler has not")
        own[name].copy_(weight)
        digest.add(name, own[name])
    if digest.hex() != published.digest:
        raise RetoolError(
            f"weights of version {published.version} have not arrived whole: their digest is {digest.hex()}, and the "
            f"learner's is {published.digest}"
        )


def to_shards(weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[Shard]:
    """In parts of about `SHARD_BYTES`."""
    shard: Shard = {}
    size = 0
    for name, weight in weights:
        data = _bytes(weight)
        shard[name] = (str(weight.dtype).removeprefix("torch."), tuple(weight.shape), data)
        size += data.nbytes
        if size >= SHARD_BYTES:
            yield shard
            shard, size = {}, 0
    if shard:
        yield shard


def from_shard(shard: Shard) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors that lie where the shard lies; they must not be written to."""
    for name, (dtype, shape, data) in shard.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that the shared memory is for reading only
            weight = torch.from_numpy(data)
        yield name, weight.view(getattr(torch, dtype)).view(shape)


class _Digest:
    """Of names and bytes, in whatever order they come."""

    def __init__(self) -> None:
        self._parts: dict[str, bytes] = {}

    def add(self, name: str, weight: torch.Tensor) -> None:
        self._parts[name] = hashlib.blake2b(_bytes(weight), digest_size=16).digest()

    def of_all(self, weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        """The same weights, added on their way through."""
        for name, weight in weights:
            self.add(name, weight)
            yield name, weight

    def hex(self) -> str:
        parts = b"".join(name.encode() + part for name, part in sorted(self._parts.items()))
        return hashlib.blake2b(parts, digest_size=16).hexdigest()


def _bytes(weight: torch.Tensor) -> np.ndarray:
    """As they are, whatever the data type, row by row: of a weight that lies on the CPU in that order, no copy."""
    return weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
