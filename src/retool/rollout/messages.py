"""The agent loop in messages, for a model behind an endpoint that gives text and no token ids.

The prompt is one user message, the interpreter a tool `python(code)`, a result a message of role `tool`. Budgets are
those of `rollout` as far as an endpoint lets them be kept to: calls and seconds as they are, tokens by the server's
count of what the model wrote; results are not counted, and their length is bounded in characters.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any, Literal

from retool.config.sampling import SamplingConfig
from retool.config.schema import RolloutConfig
from retool.endpoint import Endpoint, Refused, Reply, ToolRequest
from retool.protocol import EMPTY_RESULT, Call
from retool.protocol.native import CLOSING, OPENING, TOOL, MalformedCallError, requested_code
from retool.rollout.agent import Task, Watcher
from retool.rollout.budget import Budget
from retool.rollout.execution import Execution, any_lost, record
from retool.rollout.meter import Meter
from retool.sampling.sampler import trajectory_key
from retool.sandbox import Sandbox
from retool.types import Author, Span, StopReason, Trajectory

CHARACTERS_PER_TOKEN = 4
"""Of `protocol.result_tokens`, where there is no tokenizer to count with."""

_REFUSES_THIS_CONVERSATION = (400, 413, 422)  # a status that follows replies: their conversation is too long


@dataclass(frozen=True, slots=True)
class MessageAgent:
    """What all trajectories share. `sandbox` is None where there is no interpreter: then no tool is offered.

    `instruction` stands before the problem; of a result of more than `result_characters` head and tail are kept. A
    response that has made `calls` calls, if that is given, is offered no tool any more. `watch` is told of each span.
    """

    endpoint: Endpoint
    sandbox: Sandbox | None
    rollout: RolloutConfig
    sampling: SamplingConfig
    instruction: str
    result_characters: int
    meter: Meter
    calls: int | None = None
    watch: Watcher | None = None
    protocol: None = None
    """There is none: no ids are read."""

    async def run(self, task: Task) -> Trajectory:
        """Roll out one trajectory; it comes back ungraded, without ids. Errors of the endpoint are raised, but for a
        conversation that has become longer than the model's context."""
        trajectory, budget = task.begin("messages"), Budget(self.rollout)
        trajectory.token_exact = False
        began, tool_seconds = time.perf_counter(), 0.0
        messages = [user_message(self.instruction, task.problem.text)]
        key = trajectory_key(task.seed, task.id)
        execution = Execution(self.sandbox, self.rollout, self.meter)
        with self.meter.trajectory(0), execution.session(task.id, key) as session:
            while True:
                budget.out_of_time()  # the first time, its clock begins
                may_call = self.sandbox is not None and (self.calls is None or len(trajectory.calls) < self.calls)
                try:
                    reply = await self._ask(messages, budget, may_call, task)
                except Refused as refusal:
                    if not trajectory.spans or refusal.status not in _REFUSES_THIS_CONVERSATION:
                        raise
                    stop = StopReason.TOKENS
                    break
                start = sum(len(span.text) for span in trajectory.spans)
                text, calls = _read(reply, may_call)
                self._add_span(trajectory, Span(Author.MODEL, None, text), reply.completion_tokens)
                if stop := budget.after_turn(reply.completion_tokens, _ended(reply, calls), len(calls)):
                    break

                called = time.perf_counter()
                results = await execution.run(calls, session, budget, task.id, key + len(trajectory.calls))
                tool_seconds += time.perf_counter() - called
                if results is None:
                    stop = StopReason.SECONDS
                    break
                answered = [
                    record(call, result, len(trajectory.spans) - 1, start + call.start)
                    for call, result in zip(calls, results, strict=True)
                ]
                trajectory.calls += answered
                if any_lost(answered):
                    stop = StopReason.SANDBOX
                    break

                shown = [self._shown(call.output) for call in answered]
                if stop := budget.after_result(0):
                    break
                self._add_span(trajectory, Span(Author.INTERPRETER, None, "\n".join(shown)), 0)
                messages.append(reply.message)
                messages += [
                    {"role": "tool", "tool_call_id": request.id, "content": result}
                    for request, result in zip(reply.tool_calls, shown, strict=True)
                ]
        trajectory.stop = stop
        trajectory.timing = {"seconds": time.perf_counter() - began, "tool_seconds": tool_seconds}
        return trajectory

    async def _ask(self, messages: list[dict[str, Any]], budget: Budget, may_call: bool, task: Task) -> Reply:
        with self.meter.sampling(task.id) as facts:
            reply = await self.endpoint.chat(
                messages,
                tools=[TOOL] if may_call else None,
                key=trajectory_key(task.seed, task.sample) >> 1,  # not the arm's: its replies serve other arms too
                temperature=self.sampling.temperature,
                top_p=self.sampling.top_p,
                max_tokens=min(budget.turn_tokens, self.endpoint.config.max_tokens),
            )
            facts |= {"tokens": reply.completion_tokens, "ended": reply.finish}
        return reply

    def _add_span(self, trajectory: Trajectory, span: Span, tokens: int) -> None:
        trajectory.spans.append(span)
        self.meter.wrote(span.author, tokens)
        if self.watch:
            self.watch(trajectory, ())

    def _shown(self, output: str) -> str:
        """What the model reads of a result."""
        result, budget = output.rstrip("\r\n") or EMPTY_RESULT, self.result_characters
        if len(result) <= budget:
            return result
        head, tail = result[: budget - budget // 2], result[len(result) - budget // 2 :]
        return f"{head}\n… {len(result) - budget} characters omitted …\n{tail}"


def user_message(instruction: str, problem_text: str) -> dict[str, Any]:
    """The prompt: an instruction, "" for none, and the problem."""
    return {"role": "user", "content": f"{instruction}\n\n{problem_text}" if instruction else problem_text}


def _read(reply: Reply, may_call: bool) -> tuple[str, list[Call]]:
    """The text of a reply, its calls written out at the end, and the calls that are to be run: none where the reply was
    cut short. A `start` counts characters."""
    text, calls = reply.text, []
    for request in reply.tool_calls:
        text += "\n" * bool(text and not text.endswith("\n"))
        calls.append(_call(request, len(text)))
        arguments = f'{{"name": {json.dumps(request.name)}, "arguments": {request.arguments}}}'
        text += f"{OPENING}\n{arguments}\n{CLOSING}"
    return text, calls if may_call and reply.finish != "length" else []


def _call(request: ToolRequest, start: int) -> Call:
    try:
        arguments = json.loads(request.arguments, strict=False)
        return Call(requested_code({"name": request.name, "arguments": arguments}), None, start)
    except (ValueError, RecursionError) as error:
        return Call(None, f"Nothing was executed: the arguments are not valid JSON ({error}).", start)
    except MalformedCallError as error:
        return Call(None, f"Nothing was executed: {error}.", start)


def _ended(reply: Reply, calls: list[Call]) -> Literal["eos", "stop", "length"]:
    if calls:
        return "stop"
    return "eos" if reply.finish == "stop" else "length"
