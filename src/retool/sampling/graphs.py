"""Decode steps as CUDA graphs: one launch instead of a thousand, for each shape that occurs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

Forward = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
"""Ids [R], positions [R] and span to logits [R, V], for the first R rows of the cache."""

_WARM_UP_RUNS = 2  # libraries choose their kernels in the first runs, which a graph must not record


class _Recorded(NamedTuple):
    graph: torch.cuda.CUDAGraph
    ids_R: torch.Tensor
    positions_R: torch.Tensor
    logits_RV: torch.Tensor


class GraphedForward:
    """`forward`, recorded once for each number of rows and span, and replayed from then on.

    What it reads besides its arguments (weights, cache) must stay where it is; its values may change. The logits are
    overwritten by the next call.
    """

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self._recorded: dict[tuple[int, int], _Recorded] = {}
        self._pool: object = None

    def __call__(self, ids_R: torch.Tensor, positions_R: torch.Tensor, span: int) -> torch.Tensor:
        shape = len(ids_R), span
        recorded = self._recorded.get(shape)
        if recorded is None:
            recorded = self._recorded[shape] = self._record(ids_R, positions_R, span)
        recorded.ids_R.copy_(ids_R)
        recorded.positions_R.copy_(positions_R)
        recorded.graph.replay()
        return recorded.logits_RV

    def _record(self, ids_R: torch.Tensor, positions_R: torch.Tensor, span: int) -> _Recorded:
        ids_R, positions_R = ids_R.clone(), positions_R.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_RUNS):
                self._forward(ids_R, positions_R, span)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            logits_RV = self._forward(ids_R, positions_R, span)
        self._pool = graph.pool()
        return _Recorded(graph, ids_R, positions_R, logits_RV)
