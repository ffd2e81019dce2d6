"""How much memory the KV cache takes where nobody has said."""

from __future__ import annotations

from pathlib import Path

import torch

from retool.sampling.budget import _available_bytes, _left_in_control_group, default_cache_bytes


def test_there_is_some_memory_to_take() -> None:
    assert 0 < default_cache_bytes(torch.device("cpu")) < _available_bytes(Path("/nowhere"))


def test_what_the_kernel_counts_as_available_is_free(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  9000 kB\nMemFree:  10 kB\nMemAvailable:  2000 kB\n")
    assert _available_bytes(tmp_path / "meminfo") == 2000 * 1024


def test_the_limit_of_a_control_group_counts(tmp_path: Path) -> None:
    for name, text in {"memory.max": "1000\n", "memory.current": "700\n", "memory.stat": "anon 600\nfile 90\n"}.items():
        (tmp_path / name).write_text(text)
    assert _left_in_control_group(tmp_path) == 390
    (tmp_path / "memory.max").write_text("max\n")
    assert _left_in_control_group(tmp_path) == float("inf")
    assert _left_in_control_group(tmp_path / "none") == float("inf")
