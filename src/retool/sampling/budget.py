"""How much memory the KV cache may take, and how many rows fit into it."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from retool.errors import UsageError

_SHARE = 0.5  # the rest is for the learner's gradients and activations
_BLOCK = 8  # rows that products on a CPU take together, or a part or a multiple of it
_BLOCKS_TRIED = 4


def default_cache_bytes(device: torch.device) -> int:
    """Half of the memory that is free on `device` now; for a CPU within the limit of this process's control group."""
    if device.type == "cuda":
        return int(_SHARE * torch.cuda.mem_get_info(device)[0])
    return int(_SHARE * min(_available_bytes(), _left_in_control_group()))


def _available_bytes(account: Path = Path("/proc/meminfo")) -> float:
    try:
        lines = account.read_text().splitlines()
    except OSError:  # not Linux: what the machine has at all
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))


def _left_in_control_group(folder: Path = Path("/sys/fs/cgroup")) -> float:
    """What the control group (version 2) leaves, bytes of the page cache counted as free; inf where it has no limit."""
    try:
        limit, used = (folder / "memory.max").read_text().strip(), int((folder / "memory.current").read_text())
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except OSError:
        return float("inf")
    return float("inf") if limit == "max" else int(limit) - used + int(statistics.get("file", 0))


def rows_held(rows: int, cache_bytes: int | None, row_bytes: int, capacity: int, deterministic: bool) -> int:
    """How many rows of `capacity` tokens there are to be, if `rows` of them decode at the same time.

    Raises UsageError where the budget `cache_bytes` does not hold one, or in deterministic mode all of them.
    """
    if cache_bytes is None:
        return rows
    fitting = cache_bytes // row_bytes
    needed = rows if deterministic else 1
    if fitting < needed:
        raise UsageError(
            f"a row of the KV cache for {capacity} tokens takes {row_bytes / 2**20:.1f} MiB, and {needed} of them do "
            f"not fit into the {cache_bytes / 2**20:.0f} MiB of rollout.cache_mib; raise it, or lower "
            f"{'rollout.rows or ' if deterministic else ''}rollout.max_tokens"
        )
    return rows if deterministic else min(2 * rows, fitting)


def rows_to_try(rows: int, cache_bytes: int | None, row_bytes: int) -> list[int]:
    """`rows`, and then whole blocks of rows beyond, of which a library has no rest to multiply by other means."""
    whole = range(rows // _BLOCK + 1, rows // _BLOCK + 1 + _BLOCKS_TRIED)
    return [rows, *(n * _BLOCK for n in whole if cache_bytes is None or n * _BLOCK * row_bytes <= cache_bytes)]
