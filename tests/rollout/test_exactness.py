"""Laws of a trajectory's tokens, for random texts, tags and results, split into tokens in any way."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from worlds import END, PROTOCOLS, FakeSandbox, PacedSampler, agent, protocol_of, task

from retool.protocol import Protocol
from retool.sampling.sampler import SamplingParams, Segment, StopFunction
from retool.sandbox import Result
from retool.types import Author, CallStatus, StopReason, Trajectory
from small_tokenizers import TOKENIZERS

PIECES = [
    *("<code>", "</code>", "<code>\nprint(1)\n</code>", "<interpreter>", "</interpreter>", "</", "code>", ">", "\n"),
    *("```python\n", "```py\nx = '''\n", "```\n", "```", "```output\n", "`", " ", "é", "🤣", "\\boxed{84}", "print("),
    *("<tool_call>", "</tool_call>", '<tool_call>{"name": "python", "arguments": {"code": "x"}}</tool_call>'),
    *("<tool_response>", "</tool_response>", "<|im_start|>", "<|endoftext|>", "<think>", "ab<|", "im_end|>", END),
]
turns = st.lists(st.lists(st.sampled_from(PIECES), max_size=8).map("".join), min_size=1, max_size=4)
results = st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=6).map("".join)
PROTOCOL_OBJECTS = {(name, tokenizer): protocol_of(name, tokenizer) for name in PROTOCOLS for tokenizer in TOKENIZERS}


class Witness(PacedSampler):
    """Remembers what it was fed and what it sampled, segment by segment."""

    def __init__(self, turns: list[list[int]]):
        said = iter(turns)
        super().__init__(lambda _: next(said, []))
        self.fed: list[list[int]] = []
        self.sampled: list[list[int]] = []

    async def extend(
        self, handle: object, ids: list[int], params: SamplingParams, stop: StopFunction, key: int
    ) -> Segment:
        segment = await super().extend(handle, ids, params, stop, key)
        self.fed.append(list(ids))
        self.sampled.append(list(segment.ids))
        return segment


@st.composite
def rollouts(draw: st.DrawFn) -> tuple[Protocol, Witness, Trajectory, list[str]]:
    protocol = PROTOCOL_OBJECTS[draw(st.sampled_from(sorted(PROTOCOL_OBJECTS)))]
    said = []
    for text in draw(turns):
        cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=8)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        said.append([i for piece in pieces for i in protocol.codec.tokenizer.encode(piece, add_special_tokens=False)])
    printed: list[str] = []
    answers = st.tuples(st.sampled_from([CallStatus.OK, CallStatus.ERROR, CallStatus.TIME_LIMIT]), results)

    async def answer(_: str) -> Result:
        status, text = draw(answers)
        printed.append(text)
        return Result(status, text)

    sampler = Witness(said)
    limits = {"max_tokens": draw(st.integers(1, 400)), "max_turn_tokens": draw(st.none() | st.integers(1, 40))}
    rolled = agent(protocol, sampler, FakeSandbox(answer), **limits).run(task(protocol))
    trajectory = asyncio.run(rolled)
    assert trajectory.tokens() <= limits["max_tokens"]
    return protocol, sampler, trajectory, printed


@given(rollouts())
def test_the_models_ids_are_never_changed_and_the_mask_is_the_author(case: tuple) -> None:
    _, sampler, trajectory, _ = case
    model = [span.ids for span in trajectory.spans if span.author is Author.MODEL]
    assert model == sampler.sampled
    own = [i for i, mine in zip(trajectory.response_ids, trajectory.model_mask, strict=True) if mine]
    assert own == [i for ids in sampler.sampled for i in ids]
    for span in trajectory.spans:
        assert (span.logprobs is not None) == (span.author is Author.MODEL)


@given(rollouts())
def test_the_model_has_read_exactly_what_is_recorded(case: tuple) -> None:
    """Prompt, own tokens and results, in the order and with the ids of the trajectory."""
    _, sampler, trajectory, _ = case
    read = [i for fed, own in zip(sampler.fed, sampler.sampled, strict=True) for i in [*fed, *own]]
    assert read == trajectory.prompt_ids + trajectory.response_ids


@given(rollouts())
def test_ids_decode_to_exactly_what_is_recorded_as_text(case: tuple) -> None:
    protocol, _, trajectory, _ = case
    for span in trajectory.spans:
        assert protocol.decode(span.ids) == span.text
    whole = protocol.decode(trajectory.response_ids)
    assert whole == "".join(span.text for span in trajectory.spans) or "\ufffd" in trajectory.spans[-1].text


@given(rollouts())
def test_every_call_is_answered_once_in_order_by_one_span(case: tuple) -> None:
    protocol, _, trajectory, printed = case
    assert [call.output for call in trajectory.executed] == [
        Result(CallStatus.OK, text).text for text in printed[: len(trajectory.executed)]
    ]
    answered = [call for call in trajectory.calls if call.span + 1 < len(trajectory.spans)]
    for index, span in enumerate(trajectory.spans):
        if span.author is Author.INTERPRETER:
            outputs = [call.output for call in answered if call.span == index - 1]
            assert outputs and span.ids == protocol.splice(outputs).ids
    if len(answered) < len(trajectory.calls):
        assert trajectory.stop is StopReason.TOKENS  # no room for the last results
