"""Optimizer, SFT and PPO steps."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from retool.config.sampling import SamplingConfig
from retool.config.schema import CriticConfig, RlConfig, SftConfig
from retool.kernels.products import lay_out_for_few_rows
from retool.learner.learner import Learner
from retool.learner.logprobs import score
from retool.learner.objective import make_objective
from retool.learner.optimizer import Optimizer
from retool.learner.packing import Example, make_batch
from retool.learner.sft import sft_step
from retool.learner.trained import Trained
from retool.sampling.choose import transform_logits
from retool.types import Author, Problem, Span, StopReason, Trajectory

EXAMPLES = [Example([9, n, 20 + n, 30 + n, 5], [False, False, True, False, True]) for n in range(6)]


def further() -> list[torch.nn.Parameter]:
    """Parameters beside the model's, such as a critic's."""
    return list(torch.nn.Linear(32, 1).parameters())


def make_learner(
    model: PreTrainedModel, config: RlConfig, sampling: SamplingConfig | None = None, seed: int = 0
) -> Learner:
    return Learner(model, make_objective(config, max_tokens=10), config, sampling or SamplingConfig(), seed)


def sft(**settings: object) -> SftConfig:
    return SftConfig(**{"learning_rate": 1e-2, **settings})


def test_the_loss_is_the_mean_over_model_tokens_whatever_the_split(model: PreTrainedModel) -> None:
    state = {name: value.clone() for name, value in model.state_dict().items()}
    found = []
    for budget in (5, 1000):
        model.load_state_dict(state)
        metrics = sft_step(model, Optimizer(model, sft(), 10), EXAMPLES, budget)
        found.append((metrics["loss"], metrics["grad_norm"], metrics["token_accuracy"]))
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    model.load_state_dict(state)
    with torch.no_grad():
        scores = score(model, make_batch(EXAMPLES, list(range(6)), torch.device("cpu")))
    assert found[0][0] == pytest.approx(-float(scores.logprobs_N.mean()), rel=1e-4)
    assert found[0][2] == pytest.approx(float(scores.is_top_N.float().mean()))


def test_what_was_learned_by_heart_is_predicted_token_by_token(model: PreTrainedModel) -> None:
    optimizer = Optimizer(model, sft(), 60)
    found = [sft_step(model, optimizer, EXAMPLES[:2], 1000)["token_accuracy"] for _ in range(60)]
    assert found[0] < 0.5 and found[-1] == 1.0


def test_interpreter_tokens_are_read_and_not_learned(model: PreTrainedModel) -> None:
    """The masked token at the end can be anything: no loss and no gradient depends on predicting it."""
    norms = []
    for last in (7, 300):
        examples = [Example([9, 1, 2, last], [False, True, True, False])]
        optimizer = Optimizer(model, sft(learning_rate=1e-12), 10)
        norms.append(sft_step(model, optimizer, examples, 1000)["grad_norm"])
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_steps_lower_the_loss(model: PreTrainedModel, name: str) -> None:
    optimizer = Optimizer(model, sft(optimizer=name), 30)
    losses = [sft_step(model, optimizer, EXAMPLES, 1000)["loss"] for _ in range(30)]
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("decay", ["constant", "linear", "cosine"])
def test_the_learning_rate_follows_its_formula(model: PreTrainedModel, decay: str) -> None:
    optimizer = Optimizer(model, sft(learning_rate=1.0, warmup_steps=4, decay=decay), 10)
    for step in range(10):
        done = (step - 4) / 6
        after = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[decay]
        optimizer.steps_taken = step
        assert optimizer.learning_rate == pytest.approx((step + 1) / 4 if step < 4 else after)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_moments_come_from_the_checkpoint_and_settings_from_the_config(
    model: PreTrainedModel, name: str, tmp_path: Path
) -> None:
    old = Optimizer(model, sft(optimizer=name, betas=(0.8, 0.9)), 10, [(further(), 1e-3)])
    sft_step(model, old, EXAMPLES, 1000)
    Trained(model, old, torch.float32).save_rest(tmp_path)
    now = sft(optimizer=name, learning_rate=1e-4, weight_decay=0.1, betas=(0.7, 0.99))
    new = Optimizer(model, now, 10, [(further(), 1e-5)])
    Trained(model, new, torch.float32).load_rest(tmp_path)
    groups = {kind: optimizer.param_groups for kind, optimizer in new._optimizers.items()}
    assert [group["peak"] for group in groups["adamw"]] == [1e-4, 1e-5]
    assert {group["betas"] for group in groups["adamw"]} == {(0.7, 0.99)}
    assert {(group["lr"], group["weight_decay"]) for kind in groups.values() for group in kind} == {(1e-4, 0.1)}
    for parameter in model.parameters():
        moments = new.moments(parameter)
        assert moments
        torch.testing.assert_close(moments, old.moments(parameter), rtol=0, atol=0)


def test_moments_lie_in_memory_as_their_weights_which_an_engine_lays_out_anew(
    model: PreTrainedModel, tmp_path: Path
) -> None:
    optimizer = Optimizer(model, sft(), 10)
    sft_step(model, optimizer, EXAMPLES, 1000)
    Trained(model, optimizer, torch.float32).save_rest(tmp_path)
    lay_out_for_few_rows(model)
    resumed = Optimizer(model, sft(), 10)
    Trained(model, resumed, torch.float32).load_rest(tmp_path)
    sft_step(model, resumed, EXAMPLES, 1000)
    strides = {parameter.stride() for parameter in model.parameters()}
    assert not torch.backends.mkldnn.is_available() or (1, 64) in strides
    for parameter in model.parameters():
        assert resumed.moments(parameter)["exp_avg"].stride() == parameter.stride()


def test_steps_are_the_formulas_however_gradients_and_weights_lie_in_memory(model: PreTrainedModel) -> None:
    """The oracle is torch's unfused AdamW."""
    plain = copy.deepcopy(model)
    settings = sft(weight_decay=0.1, learning_rate=1e-3, max_grad_norm=1e9, decay="constant", betas=(0.8, 0.9))
    optimizer = Optimizer(model, settings, 10)
    oracle = torch.optim.AdamW(plain.parameters(), 1e-3, (0.8, 0.9), weight_decay=0.1, fused=False, foreach=False)
    for layout in ("as they were made", "weights transposed", "weights and moments transposed"):
        for parameter, expected in zip(model.parameters(), plain.parameters(), strict=True):
            expected.grad = torch.randn_like(expected)
            parameter.grad = expected.grad.clone()
        if layout != "as they were made":
            lay_out_for_few_rows(model)
        optimizer.step()
        oracle.step()
        for parameter, expected in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(parameter, expected, rtol=1e-5, atol=1e-7)


def test_a_gradient_that_is_not_finite_changes_nothing(model: PreTrainedModel) -> None:
    optimizer = Optimizer(model, sft(), 10)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, math.nan)
    assert math.isnan(optimizer.step())
    torch.testing.assert_close(before, [parameter.detach() for parameter in model.parameters()])
    assert optimizer.steps_taken == 1


def test_muon_takes_the_matrices_of_the_trunk_and_nothing_else(model: PreTrainedModel) -> None:
    optimizer = Optimizer(model, sft(optimizer="muon"), 10, [(further(), 1e-3)])
    taken = {id(parameter) for group in optimizer._optimizers["muon"].param_groups for parameter in group["params"]}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in taken}
    layers = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert {name.split(".")[-2] for name in names} == set(layers)
    assert len(names) == 2 * len(layers)
    assert len({id(p) for p in optimizer.parameters}) == len(optimizer.parameters) == len([*model.parameters()]) + 2


def answer(model: PreTrainedModel, token: int, sample: int) -> Trajectory:
    """A trajectory of one sampled token after the prompt [9, 1], right if the token is 4, with its true log-prob."""
    with torch.no_grad():
        logprob = float(model(torch.tensor([[9, 1]])).logits[0, -1].log_softmax(-1)[token])
    correct = token == 4
    return Trajectory(
        id=f"g/{sample}",
        step=1,
        arm="ReTool",
        seed=0,
        sample=sample,
        group="g",
        model="m",
        protocol="tags",
        problem=Problem("p", "?", "4", "test"),
        prompt_ids=[9, 1],
        spans=[Span(Author.MODEL, [token], "", [logprob])],
        correct=correct,
        reward={"total": 1.0 if correct else -1.0},
    )


def test_ppo_makes_rewarded_answers_more_probable_and_says_how_it_went(model: PreTrainedModel) -> None:
    config = RlConfig(steps=8, learning_rate=3e-3, critic=CriticConfig(learning_rate=3e-2), mini_batches=1)
    learner = make_learner(model, config)
    first = None
    for step in range(1, 9):
        trajectories = [answer(model, token, sample) for sample, token in enumerate([4, 5, 6, 7])]
        metrics, record = learner.update(trajectories, step)
        first = first or metrics
    assert answer(model, 4, 0).spans[0].logprobs > trajectories[0].spans[0].logprobs
    assert abs(first["kl_sampler_learner"]) < 1e-5 and first["logprob_gap_max"] < 1e-5
    assert first["value_mean"] == 0.0
    assert first["value_loss"] == pytest.approx(0.5)  # half of (±1 − 0)²
    assert list(record.offsets) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("count", [1, 4])
def test_the_learning_rate_decays_over_the_rl_steps_however_few_trajectories_they_have(
    model: PreTrainedModel, count: int
) -> None:
    config = RlConfig(steps=4, learning_rate=1e-3, decay="linear", mini_batches=4)
    learner = make_learner(model, config)
    lost = answer(model, 4, 0)
    lost.stop = StopReason.SANDBOX
    found = []
    for step in (1, 2, 3, 4):
        trajectories = [lost] if step == 2 else [answer(model, 4 + n, n) for n in range(count)]
        found.append(learner.update(trajectories, step)[0].get("learning_rate"))
    assert found == [1e-3, None, pytest.approx(5e-4), pytest.approx(2.5e-4)]


def test_what_the_sandbox_lost_is_left_out(model: PreTrainedModel) -> None:
    learner = make_learner(model, RlConfig(steps=1))
    lost = answer(model, 4, 0)
    lost.stop = StopReason.SANDBOX
    metrics, record = learner.update([lost], 1)
    assert metrics == {"trained": 0} and record.ids == []


def test_a_learner_goes_on_from_its_state_as_if_nothing_had_happened(model: PreTrainedModel, tmp_path: Path) -> None:
    weights = {name: value.clone() for name, value in model.state_dict().items()}

    def run(learner: Learner, steps: range) -> None:
        for step in steps:
            learner.update([answer(model, token, n) for n, token in enumerate([4, 5, 6, 7])], step)

    config = RlConfig(steps=4, learning_rate=1e-2, optimizer="muon")
    whole = make_learner(model, config)
    run(whole, range(1, 3))
    whole.trained.save_rest(tmp_path)
    middle = {name: value.clone() for name, value in model.state_dict().items()}
    run(whole, range(3, 5))
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    assert any(not torch.equal(weights[name], expected[name]) for name in weights)

    model.load_state_dict(middle)
    resumed = make_learner(model, config, seed=1)
    resumed.seed = 0
    resumed.trained.load_rest(tmp_path)
    run(resumed, range(3, 5))
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name]), name


def with_a_call(model: PreTrainedModel, token: int, sample: int) -> Trajectory:
    """As `answer`, with a result of the interpreter and one more token behind it."""
    trajectory = answer(model, token, sample)
    trajectory.spans.append(Span(Author.INTERPRETER, [7, 7, 8], ""))
    ids = torch.tensor([[9, 1, token, 7, 7, 8]])
    with torch.no_grad():
        logprob = float(model(ids).logits[0, -1].log_softmax(-1)[11])
    trajectory.spans.append(Span(Author.MODEL, [11], "", [logprob]))
    return trajectory


def test_the_learner_sees_the_models_tokens_alone_however_they_are_batched(model: PreTrainedModel) -> None:
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    found = []
    for budget in (6, 10_000):
        model.load_state_dict(weights)
        config = RlConfig(steps=1, learning_rate=1e-3, micro_batch_tokens=budget, mini_batches=1)
        learner = make_learner(model, config)
        metrics, record = learner.update([with_a_call(model, token, n) for n, token in enumerate([4, 5])], 1)
        assert record.offsets.tolist() == [0, 2, 4]
        assert metrics["logprob_gap_max"] < 1e-5
        found.append(metrics)
    assert found[0] == pytest.approx(found[1], rel=1e-4, abs=1e-6)


def test_ppo_learns_where_the_sampler_leaves_tokens_out(model: PreTrainedModel) -> None:
    sampling = SamplingConfig(top_p=0.7)

    def logprobs() -> torch.Tensor:
        with torch.no_grad():
            return transform_logits(model(torch.tensor([[9, 1]])).logits[:, -1], sampling).log_softmax(-1)[0]

    before = logprobs()
    token = int(before.argmax())
    rewarded = answer(model, token, 0)
    rewarded.reward["total"], rewarded.spans[0].logprobs = 1.0, [float(before[token])]
    config = RlConfig(steps=1, learning_rate=1e-3, mini_batches=1, whiten=False)
    metrics, _ = make_learner(model, config, sampling).update([rewarded], 1)
    assert math.isfinite(metrics["grad_norm"]) and metrics["logprob_gap_max"] < 1e-5
    assert logprobs()[token] > before[token]


@pytest.mark.parametrize("sampling", [SamplingConfig(top_p=0.5), SamplingConfig(top_k=2), SamplingConfig(min_p=0.9)])
def test_numbers_stay_finite_where_a_sampled_token_is_no_longer_among_the_kept(
    model: PreTrainedModel, sampling: SamplingConfig
) -> None:
    """An update, or a logit's last bits, can carry a token over the edge of what is kept: here the least probable."""
    with torch.no_grad():
        token = int(model(torch.tensor([[9, 1]])).logits[0, -1].argmin())
    trajectories = [answer(model, each, sample) for sample, each in enumerate([token, 4])]
    config = RlConfig(steps=1, learning_rate=1e-2, mini_batches=2, epochs=4)
    metrics, record = make_learner(model, config, sampling).update(trajectories, 1)
    assert [name for name, value in metrics.items() if not math.isfinite(value)] == []
    assert torch.from_numpy(record.logprobs).isfinite().all()


def test_while_the_critic_warms_up_the_policy_stays(model: PreTrainedModel) -> None:
    config = RlConfig(steps=4, learning_rate=1e-2, critic=CriticConfig(warmup_steps=2), mini_batches=1, epochs=2)
    learner = make_learner(model, config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    changed, critics = [], []
    for step in (1, 2, 3):
        learner.update([answer(model, token, n) for n, token in enumerate([4, 5, 6])], step)
        changed.append(any(not torch.equal(value, before[name]) for name, value in model.state_dict().items()))
        critics.append(learner.critic.out.bias.item())
    assert changed == [False, False, True]
    assert len({0.0, *critics}) == 4
