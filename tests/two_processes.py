"""Functions in two processes at once, which find each other as those do that torchrun starts."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

InTwo = Callable[..., list[Any]]


@contextmanager
def two_processes() -> Iterator[InTwo]:
    """`run(function, *args, **settings)` calls it in two processes, each of which keeps its rank; what it returned in
    each of them."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as first, ProcessPoolExecutor(1, context) as second:

        def run(function: Callable, *args: Any, **settings: Any) -> list[Any]:
            pools, port = (first, second), free_port()
            parts = [pool.submit(as_process, n, 2, port, function, args, settings) for n, pool in enumerate(pools)]
            return [part.result(timeout=120) for part in parts]

        yield run


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def as_process(rank: int, size: int, port: int, function: Callable, args: tuple, settings: dict[str, Any]) -> Any:
    torch.set_num_threads(1)
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    names |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    try:
        return function(*args, **settings)
    finally:
        for name in names:
            del os.environ[name]
