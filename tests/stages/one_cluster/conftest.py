"""One Ray cluster for all tests of this folder. Those that change a cluster have one of their own, elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("ray", reason="Ray is not installed")

from ray_cluster import three_nodes


@pytest.fixture(scope="package")
def cluster() -> Iterator[None]:
    """Three nodes, the first two with a GPU by name."""
    with three_nodes(gpus=2):
        yield
