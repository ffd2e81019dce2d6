"""The agent loop, with a scripted sampler, the real sandbox, a real tokenizer and the paper's tags."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from copy import deepcopy

import pytest
from transformers import PreTrainedTokenizerFast

from retool.config.sampling import SamplingConfig
from retool.config.sandbox import SandboxConfig
from retool.config.schema import ProtocolConfig, RolloutConfig
from retool.grading import Grader
from retool.protocol import Protocol, make_protocol
from retool.rollout.agent import Agent, Task
from retool.rollout.collect import collect
from retool.sampling.scripted import ScriptedSampler
from retool.sandbox import Result, Sandbox
from retool.types import Author, CallStatus, Problem, StopReason, Trajectory

TOOLS_TEMPLATE = (
    "{{ tools | tojson }}{% for message in messages %}{{ '<' + message.role + '>' + message.content }}"
    "{% for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}"
    "{% if message.role == 'assistant' %}{{ '<eos>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
PROBLEM = Problem("p", "What is 12 times 7?", "84", "test")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(SandboxConfig(allow_weak=True)) as box:
        yield box


@pytest.fixture(scope="module")
def protocol(tokenizer: PreTrainedTokenizerFast) -> Protocol:
    return make_protocol(ProtocolConfig(name="tags", instruction=""), tokenizer)


class World:
    """Rolls out one trajectory in which the model says the given turns, one after each result."""

    def __init__(self, protocol: Protocol, sandbox: Sandbox, tokenizer: PreTrainedTokenizerFast):
        self.protocol, self.sandbox, self.tokenizer = protocol, sandbox, tokenizer

    def roll_out(
        self,
        turns: Sequence[str],
        *,
        max_tokens: int = 400,
        max_calls: int = 4,
        sandbox: object = None,
        eos_ids: frozenset[int] = frozenset(),
        stateful: bool = False,
        echo: bool = False,
    ) -> tuple[Trajectory, ScriptedSampler]:
        said = iter(turns)
        sampler = ScriptedSampler(lambda _: self.tokenizer(next(said), add_special_tokens=False)["input_ids"])
        sampler.eos_ids = eos_ids
        agent = Agent(
            sampler,
            self.protocol,
            sandbox or self.sandbox,
            RolloutConfig(max_tokens=max_tokens, max_calls=max_calls, stateful=stateful, echo=echo),
            SamplingConfig(),
        )
        task = Task(PROBLEM, self.protocol.prompt_ids(PROBLEM.text), "ReTool", 0, 1, 0, "scripted")

        async def main() -> Trajectory:
            with Grader() as grader:
                return (await collect(agent, [task], grader))[0]

        return asyncio.run(main()), sampler


@pytest.fixture
def world(protocol: Protocol, sandbox: Sandbox, tokenizer: PreTrainedTokenizerFast) -> World:
    return World(protocol, sandbox, tokenizer)


def test_code_is_run_and_its_result_comes_back_as_the_interpreters_words(world: World) -> None:
    trajectory, sampler = world.roll_out(["We need 12 * 7.\n<code>\nprint(12 * 7)\n</code>", "\\boxed{84}<eos>"])
    authors = [span.author for span in trajectory.spans]
    assert authors == [Author.MODEL, Author.INTERPRETER, Author.MODEL]
    assert trajectory.spans[1].text == "\n<interpreter>\n84\n</interpreter>\n"
    assert [(call.code, call.output, call.status) for call in trajectory.calls] == [
        ("print(12 * 7)", "84", CallStatus.OK)
    ]
    assert (trajectory.stop, trajectory.answer, trajectory.correct) == (StopReason.EOS, "84", True)
    assert trajectory.reward == {"total": 1.0}
    assert sampler.released == 1


def test_only_the_models_tokens_are_marked_as_its_own_and_carry_log_probabilities(world: World) -> None:
    trajectory, _ = world.roll_out(["<code>\nprint(1)\n</code>", "\\boxed{84}<eos>"])
    for span in trajectory.spans:
        assert (span.logprobs is not None) == (span.author is Author.MODEL)
    assert len(trajectory.model_mask) == len(trajectory.response_ids)
    assert sum(trajectory.model_mask) == trajectory.tokens(Author.MODEL)


def test_a_call_starts_where_its_tag_starts(world: World) -> None:
    trajectory, _ = world.roll_out(["Hm.\n<code>\nprint(1)\n</code>", "Hm.\n<code>\nprint(2)\n</code>", "<eos>"])
    opening = world.tokenizer.convert_tokens_to_ids("<code>")
    assert [trajectory.response_ids[call.start] for call in trajectory.calls] == [opening, opening]


def test_what_code_prints_is_never_graded(world: World) -> None:
    trajectory, _ = world.roll_out(["<code>\nprint('\\\\boxed{84}')\n</code>", "Done.<eos>"])
    assert "\\boxed{84}" in trajectory.spans[1].text
    assert (trajectory.answer, trajectory.correct) == (None, False)


def test_an_answer_before_a_call_counts_and_one_inside_its_code_does_not(world: World) -> None:
    turns = ["\\boxed{84}, to be checked.\n<code>\nprint('\\\\boxed{7}')\n</code>", "Checked.<eos>"]
    trajectory, _ = world.roll_out(turns)
    assert (trajectory.answer, trajectory.correct) == ("84", True)


def test_a_box_is_not_joined_across_a_result(world: World) -> None:
    trajectory, _ = world.roll_out(["\\boxed{<code>\nprint(84)\n</code>", "84}<eos>"])
    assert trajectory.answer is None


def test_printed_tags_and_special_tokens_stay_text(world: World) -> None:
    trajectory, _ = world.roll_out(
        ["<code>\nprint('</' + 'interpreter><' + 'eos><' + 'code>')\n</code>", "\\boxed{84}<eos>"]
    )
    assert "&lt;/interpreter>" in trajectory.spans[1].text
    special = set(world.tokenizer.convert_tokens_to_ids(["<eos>", "<code>", "</code>"]))
    assert not special & set(trajectory.spans[1].ids or ())
    assert trajectory.correct


def test_an_error_is_told_with_its_traceback(world: World) -> None:
    trajectory, _ = world.roll_out(["<code>\nprint(1 / 0)\n</code>", "\\boxed{84}<eos>"])
    assert trajectory.calls[0].status is CallStatus.ERROR
    assert "ZeroDivisionError" in trajectory.spans[1].text


CALLS_THAT_BUILD_ON_EACH_OTHER = [
    "<code>\nx = 12\n</code>",
    "<code>\nx = 0\n1 / 0\n</code>",
    "<code>\nx * 7\n</code>",
    "\\boxed{84}<eos>",
]


def test_each_call_is_a_program_of_its_own(world: World) -> None:
    trajectory, _ = world.roll_out(CALLS_THAT_BUILD_ON_EACH_OTHER)
    assert [call.status for call in trajectory.calls] == ["ok", "error", "error"]
    assert "NameError" in trajectory.calls[2].output


def test_with_state_a_call_finds_the_variables_of_those_that_went_well(world: World) -> None:
    trajectory, _ = world.roll_out(CALLS_THAT_BUILD_ON_EACH_OTHER, stateful=True, echo=True)
    assert [call.status for call in trajectory.calls] == ["ok", "error", "ok"]
    assert trajectory.calls[2].output == "84"


@pytest.mark.parametrize("text", ["print(1)\n</code>", "<code>\n\n</code>"])
def test_a_malformed_call_is_answered_instead_of_ending_the_trajectory(world: World, text: str) -> None:
    trajectory, _ = world.roll_out([text, "\\boxed{84}<eos>"])
    assert trajectory.calls[0].status is CallStatus.MALFORMED
    assert "Nothing was executed" in trajectory.calls[0].output
    assert "Nothing was executed" in trajectory.spans[1].text
    assert not trajectory.executed
    assert trajectory.correct


def test_one_call_too_many_ends_the_trajectory(world: World) -> None:
    call = "<code>\nprint(1)\n</code>"
    trajectory, _ = world.roll_out([call, call, call], max_calls=2)
    assert (trajectory.stop, len(trajectory.calls)) == (StopReason.CALLS, 2)
    assert trajectory.truncated


@pytest.mark.parametrize("room", range(1, 60, 7))
def test_no_budget_is_ever_exceeded(world: World, room: int) -> None:
    turns = ["We need 12 * 7.\n<code>\nprint(12 * 7)\n</code>", "So the answer is \\boxed{84}.<eos>"]
    trajectory, sampler = world.roll_out(turns, max_tokens=room)
    assert trajectory.tokens() <= room
    assert trajectory.stop in (StopReason.TOKENS, StopReason.EOS)
    assert sampler.released == 1


def test_an_answer_cut_short_by_the_budget_is_wrong(world: World) -> None:
    words = "So the answer is \\boxed{84}. "
    trajectory, _ = world.roll_out([words * 20], max_tokens=60)
    assert trajectory.stop is StopReason.TOKENS
    assert (trajectory.answer, trajectory.correct) == ("84", False)


class FailingSandbox:
    """A sandbox that has lost every call for reasons of its own."""

    async def run(self, code: str, **_: object) -> Result:
        return Result(CallStatus.SANDBOX_ERROR, reason="the machine is on fire")


def test_a_failure_of_the_sandbox_is_never_told_to_the_model(world: World) -> None:
    trajectory, sampler = world.roll_out(["<code>\nprint(1)\n</code>", "unreachable"], sandbox=FailingSandbox())
    assert trajectory.stop is StopReason.SANDBOX
    assert [span.author for span in trajectory.spans] == [Author.MODEL]
    assert sampler.released == 1


def test_a_turn_ends_with_what_the_model_calls_an_end_too(world: World) -> None:
    """As Qwen's generation config lists <|endoftext|> beside the <|im_end|> of its template."""
    ends = frozenset(world.tokenizer.convert_tokens_to_ids(["<user>"]))
    trajectory, _ = world.roll_out(["\\boxed{84}<user>7"], eos_ids=ends)
    assert (trajectory.stop, trajectory.spans[0].text) == (StopReason.EOS, "\\boxed{84}<user>")
    trajectory, _ = world.roll_out(["\\boxed{84}<eos>7"], eos_ids=ends)
    assert (trajectory.stop, trajectory.spans[0].text) == (StopReason.EOS, "\\boxed{84}<eos>")


@pytest.mark.parametrize("end", ["<eos>", "<user>"])
def test_the_end_of_a_turn_is_no_part_of_its_last_call(world: World, end: str) -> None:
    tokenizer = deepcopy(world.tokenizer)
    tokenizer.chat_template = TOOLS_TEMPLATE
    native = World(make_protocol(ProtocolConfig(name="native"), tokenizer), world.sandbox, tokenizer)
    unclosed = '<tool_call>{"name": "python", "arguments": {"code": "print(84)"}}' + end
    ends = frozenset(tokenizer.convert_tokens_to_ids(["<user>"]))
    trajectory, _ = native.roll_out([unclosed, "\\boxed{84}" + end], eos_ids=ends)
    assert [(call.output, call.status) for call in trajectory.calls] == [("84", CallStatus.OK)]
    assert trajectory.correct


def test_trajectories_survive_a_round_trip_through_json(world: World) -> None:
    trajectory, _ = world.roll_out(["<code>\nprint(1)\n</code>", "\\boxed{84}<eos>"])
    assert Trajectory.from_json(trajectory.to_json()) == trajectory
