"""A harvest keeps what a model did by itself: verified successes, so many of a problem, in a window of difficulty."""

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager

import pytest

from retool.config.schema import Config, ModelConfig, ProtocolConfig, RolloutConfig
from retool.config.synth import HarvestConfig, SynthConfig
from retool.errors import UsageError
from retool.learner.policy import load_tokenizer
from retool.sampling.scripted import ScriptedSampler
from retool.stages.synth import synthesize
from retool.types import CallStatus, Kind, Problem, Trace

PROBLEMS = [Problem(f"p{n}", f"What is {n} times 7?", str(7 * n), "hand") for n in (2, 3, 4, 5)]
BY_HAND, RIGHT, WRONG, CORRECTED, BROKEN = range(5)
PLANS = {  # what the model does in its four attempts at each problem
    2: [BY_HAND, RIGHT, RIGHT, RIGHT],
    3: [WRONG, CORRECTED, BROKEN, RIGHT],
    4: [WRONG, WRONG, WRONG, WRONG],
    5: [BY_HAND, WRONG, BY_HAND, WRONG],
}


def turns(plan: int, n: int) -> list[str]:
    """What the model writes, turn by turn."""
    end = f"So the answer is \\boxed{{{7 * n}}}.<eos>"
    return {
        BY_HAND: [f"That is easy. {end}"],
        RIGHT: [f"We need {n} * 7.\n<code>\nprint({n} * 7)\n</code>", end],
        WRONG: [f"So the answer is \\boxed{{{n}}}.<eos>"],
        CORRECTED: [
            f"We need {n} * 7.\n<code>\nprint({n} * seven)\n</code>",
            f"Seven is 7.\n<code>\nprint({n} * 7)\n</code>",
            end,
        ],
        BROKEN: ["Nothing to run. <code></code>", end],
    }[plan]


@pytest.fixture
def harvest(model_folder, tmp_path, monkeypatch):
    """A synthesis in which the model at hand does as planned; says which problems have been rolled out, how often."""
    tokenizer = load_tokenizer(model_folder)
    attempts: Counter[int] = Counter()
    asked: dict[int, tuple[int, int]] = {}

    class Planned(ScriptedSampler):
        async def extend(self, handle, ids, params, stop, key):
            if handle is None:
                n = next(n for n in PLANS if f"What is {n} times" in tokenizer.decode(ids))
                state = [*turns(PLANS[n][attempts[n] % 4], n)]
                attempts[n] += 1
            else:
                state = asked.pop(id(handle))
            text = state.pop(0)
            self._script = lambda _: (
                tokenizer.encode(text.replace("<eos>", ""), add_special_tokens=False)
                + [tokenizer.eos_token_id] * text.endswith("<eos>")
            )
            segment = await super().extend(handle, ids, params, stop, key)
            asked[id(segment.handle)] = state
            return segment

    @asynccontextmanager
    async def planned(*_):
        yield Planned(lambda ids: [])

    monkeypatch.setattr("retool.stages.workbench._open_sampler", planned)

    def run(**settings):
        config = Config(
            model=ModelConfig(path=str(model_folder), device="cpu"),
            protocol=ProtocolConfig(instruction=""),
            rollout=RolloutConfig(max_tokens=300),
            synth=SynthConfig(rewrite="harvest", harvest=HarvestConfig(samples=4, **settings)),
        )
        out = tmp_path / "out"
        report = asyncio.run(synthesize(config, [(problem, None) for problem in PROBLEMS], out))
        traces = [Trace.from_json(json.loads(line)) for line in (out / "traces.jsonl").read_text().splitlines()]
        return report, traces, attempts

    return run


def test_successes_with_real_outputs_are_kept_and_the_rest_is_accounted_for(harvest):
    report, traces, _ = harvest()
    assert report.rejected == {"never_solved": 1, "no_call": 1}
    assert [trace.problem.id for trace in traces] == ["p2", "p3"]
    assert [(segment.kind, segment.text) for segment in traces[0].segments] == [
        (Kind.TEXT, "We need 2 * 7."),
        (Kind.CODE, "print(2 * 7)"),
        (Kind.RESULT, "14"),
        (Kind.TEXT, "So the answer is \\boxed{14}."),
    ]
    statuses = [segment.status for segment in traces[1].segments if segment.kind is Kind.RESULT]
    assert statuses == [CallStatus.ERROR, CallStatus.OK] and report.self_corrections == 1


def test_equal_successes_are_one_and_there_are_so_many_of_a_problem(harvest):
    report, traces, _ = harvest(per_problem=3)
    assert [trace.problem.id for trace in traces] == ["p2", "p3", "p3"]
    assert (report.problems, report.accepted, report.sources) == (2, 3, 4)


def test_only_problems_of_the_wanted_difficulty_are_kept(harvest):
    report, traces, _ = harvest(pass_rate=(0.25, 0.75))
    assert [trace.problem.id for trace in traces] == ["p3"]
    assert report.rejected == {"too_easy": 1, "too_hard": 1, "no_call": 1}
    assert report.examples["too_easy"][0]["detail"] == "100% of 4 responses are right"


def test_a_finished_harvest_is_not_rolled_out_again(harvest):
    _, traces, attempts = harvest()
    assert set(attempts.values()) == {4}
    assert harvest()[1] == traces and set(attempts.values()) == {4}


def test_a_harvest_needs_a_model_and_a_teacher_an_endpoint(tmp_path):
    config = Config(synth=SynthConfig(rewrite="harvest"))
    with pytest.raises(UsageError, match=r"needs a model to roll out: name one with --model"):
        asyncio.run(synthesize(config, [(PROBLEMS[0], None)], tmp_path))
