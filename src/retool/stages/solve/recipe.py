"""One question, answered while one looks on: reasoning, code and results as they come, then the answer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from retool.config.schema import Config
from retool.errors import UsageError
from retool.grading import extract_answer
from retool.learner.policy import load_policy
from retool.protocol import Protocol
from retool.rollout.agent import Agent, Task
from retool.rollout.grading import reasoning
from retool.rollout.messages import CHARACTERS_PER_TOKEN, MessageAgent
from retool.rollout.meter import Meter
from retool.stages.eval.endpoint import open_endpoint
from retool.stages.progress import console
from retool.stages.solve.transcript import check_ending, write_transcript
from retool.stages.solve.views import View
from retool.stages.workbench import open_workbench, prepare_torch
from retool.types import Author, Problem, Trajectory


async def solve(config: Config, question: str, view: View, transcript: Path | None = None) -> Trajectory:
    """Answer `question` with `model.path`, or with the model behind `eval.endpoint`; `view` is shown all of it.

    Sampling is that of evaluations (`eval.sampling`), and nothing is graded, as there is no reference. `transcript` is
    a file to write: Markdown or JSON, by its ending.
    """
    if transcript:
        check_ending(transcript)
    if not question.strip():
        raise UsageError("there is no question: give one as the last argument, or on the standard input with -")
    identity = hashlib.blake2b(question.encode(errors="backslashreplace"), digest_size=6).hexdigest()
    problem = Problem(identity, question, answer="", source="solve")
    answer_it = _by_messages if config.eval.endpoint else _by_ids
    trajectory = await answer_it(config, problem, view)
    view.ended(trajectory)
    if transcript:
        write_transcript(transcript, trajectory)
    return trajectory


async def _by_ids(config: Config, problem: Problem, view: View) -> Trajectory:
    if config.model.path is None:
        raise UsageError("there is no model to ask: give --model, or eval.endpoint.url and eval.endpoint.model")
    config = config.model_copy(update={"rollout": config.rollout.model_copy(update={"rows": 1})})
    prepare_torch(config)
    name = config.model.path
    with console.status(Text(f"loading {name}")):
        model, tokenizer = load_policy(config.model)
    async with open_workbench(config, model, tokenizer, [problem], model_name=name, arm="solve") as bench:
        protocol = bench.protocol
        follower = Follower(view, protocol, protocol.eos_ids | bench.sampler.eos_ids)
        interpreter = config.eval.interpreter == "on"
        agent = Agent(
            bench.sampler,
            protocol,
            bench.sandbox,
            config.rollout,
            config.eval.sampling,
            interpreter,
            watch=follower,
        )
        trajectory = await agent.run(_task(config, problem, protocol.prompt_ids(problem.text), name))
        trajectory.answer = extract_answer(reasoning(trajectory, protocol))
    return trajectory


async def _by_messages(config: Config, problem: Problem, view: View) -> Trajectory:
    """Turn by turn, as an endpoint's replies come whole."""
    async with open_endpoint(config, "solve", cache=None) as bench:
        agent = MessageAgent(
            bench.endpoint,
            bench.sandbox,
            config.rollout,
            config.eval.sampling,
            bench.instruction,
            config.protocol.result_tokens * CHARACTERS_PER_TOKEN,
            Meter(),
            calls=None if config.eval.interpreter == "on" else 0,
            watch=Follower(view),
        )
        trajectory = await agent.run(_task(config, problem, None, bench.model_name))
        trajectory.answer = extract_answer(reasoning(trajectory))
    return trajectory


def _task(config: Config, problem: Problem, prompt_ids: list[int] | None, model: str) -> Task:
    return Task(problem, prompt_ids, "solve", config.seed, 0, 0, model)


class Follower:
    """Tells a view, piece by piece and in order, what a growing trajectory has that it has not been shown yet.

    Without a `protocol` texts are taken from the spans. Of tokens that end within a character, the last ones are held
    back until it is whole; an id of `eos_ids` that ends a turn is not shown.
    """

    def __init__(self, view: View, protocol: Protocol | None = None, eos_ids: frozenset[int] = frozenset()):
        self._view, self._protocol, self._eos_ids = view, protocol, eos_ids
        self._spans = self._calls = 0  # shown to their end
        self._ids = 0  # shown of the turn under way

    def __call__(self, trajectory: Trajectory, writing: Sequence[int]) -> None:
        while self._spans < len(trajectory.spans) or self._has_result(trajectory):
            if self._has_result(trajectory):  # of a turn that was shown
                self._view.answered(trajectory.calls[self._calls])
                self._calls += 1
                continue
            span = trajectory.spans[self._spans]
            self._spans += 1
            if span.author is Author.INTERPRETER:
                self._view.read(span.text)
            else:
                self._view.wrote(self._rest(span.ids) if self._protocol else span.text)
                self._view.turn_ended()
        if writing and not (text := self._protocol.decode(writing[self._ids :])).endswith("\ufffd"):
            self._view.wrote(text)
            self._ids = len(writing)

    def _has_result(self, trajectory: Trajectory) -> bool:
        return self._calls < len(trajectory.calls) and trajectory.calls[self._calls].span < self._spans

    def _rest(self, ids: list[int]) -> str:
        """What is left to show of a turn that has come to its end."""
        end = len(ids) - bool(ids and ids[-1] in self._eos_ids)
        shown, self._ids = self._ids, 0
        return self._protocol.decode(ids[shown:end])
