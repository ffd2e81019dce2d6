"""What runs start from."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_run import cold_start, small_config


@pytest.fixture(scope="session")
def cold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that RL can start from."""
    return cold_start(small_config(), tmp_path_factory.mktemp("cold"))
