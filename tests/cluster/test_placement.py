"""Which process goes where: every one has its GPUs, on one node, or there is a sentence that says why not."""

from __future__ import annotations

import re
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retool.cluster.hardware import Hardware
from retool.cluster.placement import place
from retool.config.cluster import ClusterConfig
from retool.errors import UsageError

sizes = st.sampled_from([1, 2, 4, 8])


def hardware(nodes: int, per_node: int = 8) -> Hardware:
    return Hardware.of(ClusterConfig(nodes=nodes, gpus_per_node=per_node))


@given(learners=st.integers(1, 40), samplers=st.integers(1, 12), size=sizes, nodes=st.integers(1, 8))
def test_processes_apart_have_gpus_of_their_own_on_one_node_each(
    learners: int, samplers: int, size: int, nodes: int
) -> None:
    cluster = ClusterConfig(learners=learners, samplers=samplers, tensor_parallel=size, nodes=nodes)
    try:
        placement = place(cluster, hardware(nodes))
    except UsageError:
        per_node = [max(0, min(8, 8 * (node + 1) - learners)) // size for node in range(nodes)]
        assert learners > 8 * nodes or sum(per_node) < samplers
        return
    used = list(chain.from_iterable([(process.node, gpu) for gpu in process.gpus] for process in placement.processes))
    assert len(used) == len(set(used)) == learners + samplers * size
    assert all(node < nodes and gpu < 8 for node, gpu in used)
    assert placement.idle == 8 * nodes - len(used)
    assert [process.kind for process in placement.processes] == ["learner"] * learners + ["sampler"] * samplers


@given(samplers=st.integers(1, 8), size=sizes)
def test_colocated_samplers_have_the_learners_gpus(samplers: int, size: int) -> None:
    cluster = ClusterConfig(learners=samplers * size, samplers=samplers, tensor_parallel=size, placement="colocated")
    placement = place(cluster, hardware(8))
    learning, sampling = (
        {(process.node, gpu) for process in placement.processes if process.kind == kind for gpu in process.gpus}
        for kind in ("learner", "sampler")
    )
    assert learning == sampling


def test_servers_that_run_already_take_no_place() -> None:
    placement = place(ClusterConfig(learners=8, samplers=4), hardware(1), ["http://127.0.0.1:8000"])
    assert {process.kind for process in placement.processes} == {"learner"}


def test_a_sandbox_is_on_every_node_or_on_the_first_ones() -> None:
    assert place(ClusterConfig(nodes=3), hardware(3)).sandboxes == [0, 1, 2]
    assert place(ClusterConfig(nodes=3, sandboxes=2), hardware(3)).sandboxes == [0, 1]


@pytest.mark.parametrize(
    ("settings", "nodes", "message"),
    [
        (
            {"learners": 16},
            1,
            r"has 8 GPUs \(1 node of 8\), and 17 are asked for \(16 for learners, 1 × 1 for",
        ),
        ({"learners": 4, "samplers": 3, "tensor_parallel": 2}, 1, "with cluster.nodes=2, or with cluster.samplers=2"),
        (
            {"learners": 8, "samplers": 2, "tensor_parallel": 4},
            1,
            "nodes=2, or with cluster.placement=colocated cluster.mode=sync cluster.learners=8 cluster.samplers=2",
        ),
        ({"learners": 5, "samplers": 2, "tensor_parallel": 2}, 1, "there would be a place"),
        ({"samplers": 5, "tensor_parallel": 3}, 2, "4 of 5 samplers.* beside 1 learners no node .* has 3 GPUs left"),
        ({"tensor_parallel": 16}, 4, "cluster.tensor_parallel=16 asks for more GPUs than a node has .8."),
        ({"sandboxes": 3}, 2, "cluster.sandboxes=3 is more than there are nodes .2."),
    ],
)
def test_what_has_no_place_is_refused_with_the_numbers(settings: dict, nodes: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        place(ClusterConfig(nodes=nodes, **settings), hardware(nodes))


@given(learners=st.integers(1, 64), samplers=st.integers(1, 16), size=sizes, nodes=st.integers(1, 4))
def test_advice_about_nodes_is_right(learners: int, samplers: int, size: int, nodes: int) -> None:
    cluster = ClusterConfig(learners=learners, samplers=samplers, tensor_parallel=size, nodes=nodes)
    try:
        place(cluster, hardware(nodes))
    except UsageError as error:
        if advised := re.search(r"cluster\.nodes=(\d+)", str(error)):
            assert 8 * int(advised[1]) >= learners + samplers * size > 8 * nodes
