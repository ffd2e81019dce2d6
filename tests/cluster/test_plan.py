"""Plans: the presets fit, what cannot fit is refused with numbers, and the advice that is given helps."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from retool.cli.main import cli
from retool.cluster.hardware import GPUS
from retool.cluster.plan import ClusterPlan, make_plan
from retool.config.load import load_config, presets
from retool.config.schema import Config
from retool.errors import UsageError

TWO_NODES = [
    "cluster.nodes=2",
    "cluster.placement=colocated",
    "cluster.mode=sync",
    "cluster.learners=16",
    "cluster.samplers=4",
]
EIGHT_NODES = ["cluster.nodes=8", "cluster.learners=32", "cluster.samplers=8"]
SMALL = [
    "model.path=null",
    "model.architecture={model_type: llama, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2, "
    "num_attention_heads: 4, num_key_value_heads: 2}",
]


def plan(*overrides: str, preset: str = "retool-32b") -> ClusterPlan:
    return make_plan(load_config(Config, preset, overrides))


@pytest.mark.parametrize("name", [name for name in presets() if load_config(Config, name).cluster])
def test_a_preset_with_a_cluster_fits_it(name: str) -> None:
    made = plan(preset=name)
    made.check()
    assert made.placement.idle == 0
    assert not any("stay empty" in note for note in made.notes)


@pytest.mark.parametrize("overrides", [TWO_NODES, EIGHT_NODES, ["cluster.gpu=h20-96"], ["cluster.gpu=h200-141"]])
def test_the_32b_preset_fits_as_its_comments_say(overrides: list[str]) -> None:
    plan(*overrides).check()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["cluster.gpu=l40s-48"], r"learner's GPU needs 62.1 GiB \(weights 7.6 GiB, optimizer 15.3 GiB.* has 40.2 GiB"),
        (
            ["model.gradient_checkpointing=false"],
            r"activations 363.6 GiB.*it would fit with .*gradient_checkpointing=true",
        ),
        (["rl.critic.trunk=own"], "critic 29.8 GiB.*rl.critic.trunk=shared"),
        (["cluster.learners=4"], "it would fit with cluster.learners=16"),
        (["cluster.tensor_parallel=1", "cluster.gpu=l40s-48", "cluster.samplers=16"], "a sampler's GPU has 40.0 GiB"),
        (["sandbox.memory_mib=65536"], "node 0 needs .* of main memory.*lower sandbox.workers or sandbox.memory_mib"),
        (["cluster.node_memory_gib=512"], "learners while they load.*spread the learners over more nodes"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_numbers(overrides: list[str], message: str) -> None:
    made = plan(*overrides)
    assert not made.fits
    with pytest.raises(UsageError, match=message):
        made.check()


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.gradient_checkpointing=false"],
        ["rl.critic.trunk=own"],
        ["rl.micro_batch_tokens=65536"],
        ["cluster.tensor_parallel=1", "cluster.gpu=l40s-48", "cluster.samplers=16", "cluster.learners=16"],
        [*TWO_NODES, "cluster.tensor_parallel=1", "cluster.samplers=16", "rollout.max_tokens=30000"],
        [*TWO_NODES, "cluster.tensor_parallel=1", "cluster.samplers=16", "sampler.backend=engine"],
    ],
)
def test_following_the_advice_removes_the_problem(overrides: list[str]) -> None:
    problem = plan(*overrides).problems[0]
    owner = problem.split(" needs ")[0].split(" has ")[0]
    advised = re.findall(r"with ((?:[a-z_]+\.[\w.]+=\S+ ?)+)", problem.split("it would fit ")[1])
    assert advised
    for words in advised:
        further = [word.strip(",") for word in words.split()]
        try:
            after = plan(*overrides, *further, "cluster.nodes=64").problems
        except UsageError as error:  # colocated: as many samplers as learners have GPUs
            assert "cluster.placement=colocated puts samplers" in str(error)
            continue
        assert not any(each.startswith(owner) for each in after), (further, after)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["cluster=null"], "needs the section `cluster`"),
        (["cluster.tensor_parallel=3"], "does not divide the model's 40 query and 8 key heads; 1, 2, 4, 8, 40 would"),
        (["cluster.queue=10"], "cluster.queue=10 holds fewer trajectories .* 256 prompts × 8 samples = 2048"),
        (["rollout.max_tokens=40000"], "leaves no room for a prompt in the model's context of 32768"),
        (["sampler.backend=engine"], "cluster.tensor_parallel=4 needs sampler.backend=vllm"),
        (["cluster.placement=colocated"], "cluster.mode=async samples while the learner learns.*cluster.mode=sync"),
        (["cluster.placement=colocated", "cluster.mode=sync", "cluster.samplers=3"], "3 .* are 12 GPUs .*samplers=4"),
        (
            ["sampler.urls=[http://a:1]", *TWO_NODES],
            "the servers of sampler.urls cannot",
        ),
        (["cluster.gpu=h100"], "cluster.gpu must be one of 'a100-80'"),
        (["cluster.learners=0"], "cluster.learners must be greater than 0, found 0"),
        (["cluster.learner=2"], "unknown config key 'cluster.learner'.*did you mean 'cluster.learners'"),
    ],
)
def test_settings_that_contradict_each_other_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(*overrides)


def test_an_engine_that_takes_turns_keeps_its_memory_beside_all_of_the_learners() -> None:
    turns = ["cluster.placement=colocated", "cluster.mode=sync", "cluster.learners=8", "cluster.samplers=8"]
    vllm, engine = (plan(*turns, f"sampler.backend={name}", preset="qwen2.5-7b") for name in ("vllm", "engine"))
    learning, sampling = vllm.gpus
    (together,) = engine.gpus
    engine.check()
    sizes = {item.name: item.size for item in together.items}
    assert {f"learner's {item.name}" for item in learning.items} <= sizes.keys()
    assert together.used <= together.capacity == sampling.capacity
    assert 0 < engine.kv_rows < vllm.kv_rows


def test_a_plan_says_what_is_on_paper_only() -> None:
    def on_paper(*overrides: str) -> list[str]:
        return [note for note in plan(*overrides).notes if "on paper" in note]

    assert [note.split()[0] for note in on_paper()] == ["NCCL"]
    assert not on_paper("cluster.weights=shared_memory")
    assert "vLLM takes turns" in on_paper(*TWO_NODES)[-1]


def test_processes_without_gpus_share_the_memory_of_their_node() -> None:
    settings = [*SMALL, "cluster.gpu=cpu", "cluster.nodes=3", "cluster.gpus_per_node=2", "cluster.node_cores=2"]
    settings += ["cluster.learners=2", "cluster.samplers=2", "cluster.tensor_parallel=1", "sampler.backend=engine"]
    settings += ["rollout.max_tokens=160", "rollout.rows=8", "rl.micro_batch_tokens=1024", "sandbox.memory_mib=256"]
    made = plan(*settings, "cluster.node_memory_gib=4")
    made.check()
    assert made.gpus == [] and made.step is None and made.transport == "shared_memory"
    assert {item.name for item in made.nodes[0].items} >= {"learners: weights", "sandbox at its limits"}
    assert any(item.name == "samplers: KV cache" for item in made.nodes[1].items)
    with pytest.raises(UsageError, match=r"node 0 needs .* of main memory .* and has 1.0 GiB"):
        plan(*settings, "cluster.node_memory_gib=1").check()


def test_twice_the_learners_hold_half_each_and_learn_twice_as_fast() -> None:
    one, two = plan("cluster.nodes=8"), plan("cluster.nodes=8", "cluster.learners=32")
    weights = [next(item.size for item in made.gpus[0].items if item.name == "weights") for made in (one, two)]
    updates = [next(phase.seconds for phase in made.step.phases if phase.name == "update") for made in (one, two)]
    assert weights[0] == 2 * weights[1]
    assert updates[0] == pytest.approx(2 * updates[1])


@pytest.mark.parametrize("gpu", GPUS)
def test_a_faster_gpu_makes_no_phase_longer(gpu: str) -> None:
    slower = [
        name for name in GPUS if GPUS[name].flops <= GPUS[gpu].flops and GPUS[name].bandwidth <= GPUS[gpu].bandwidth
    ]
    fast = plan("model.lora.rank=8", f"cluster.gpu={gpu}").step
    for other in slower:
        if GPUS[other].memory <= GPUS[gpu].memory:
            slow = plan("model.lora.rank=8", f"cluster.gpu={other}").step
            assert all(a.seconds <= b.seconds * (1 + 1e-9) for a, b in zip(fast.phases, slow.phases, strict=True))


def test_the_command_prints_tables_and_json() -> None:
    shown = CliRunner().invoke(cli, ["cluster", "plan", "retool-32b"])
    assert shown.exit_code == 0
    assert "KV cache" in shown.output and "It fits." in shown.output
    found = json.loads(CliRunner().invoke(cli, ["cluster", "plan", "retool-32b", "--json"]).output)
    assert found["fits"] and len(found["processes"]) == 20
    assert found["gpus"][0]["bytes"] == sum(item["bytes"] for item in found["gpus"][0]["items"].values())
    assert found["step"]["seconds"].keys() == {"rollout", "log-probs", "update", "weights"}


def test_the_command_ends_with_2_where_it_does_not_fit() -> None:
    shown = CliRunner().invoke(cli, ["cluster", "plan", "retool-32b", "cluster.gpu=l40s-48"])
    assert shown.exit_code == 2
    assert "It does not fit: a learner's GPU needs 62.1 GiB" in shown.output


def test_a_plan_needs_neither_torch_nor_transformers_nor_ray() -> None:
    code = (
        "import sys; from retool.cluster.plan import make_plan; from retool.config.load import load_config; "
        "from retool.config.schema import Config; make_plan(load_config(Config, 'retool-32b')); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'ray')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
