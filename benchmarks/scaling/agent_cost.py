"""What a token costs the process of its agent loop where vLLM streams it: an event to parse, and the loop itself.

That is what a single process could follow at most, and why agents run beside the samplers.
"""

from __future__ import annotations

import asyncio
import json
import time

from retool.config.load import load_config
from retool.config.sampling import SamplingConfig
from retool.config.schema import Config, RolloutConfig
from retool.learner.tokenizer import train_tokenizer
from retool.protocol import make_protocol
from retool.puzzles.generate import split
from retool.rollout.agent import Agent, Task
from retool.sampling.scripted import ScriptedSampler

_EVENT = (
    'data: {"request_id": "generate-tokens-7f3c", "choices": [{"index": 0, "logprobs": {"content": [{"token_id": 2041, '
    '"logprob": -0.31640625, "rank": 1}]}, "finish_reason": null, "stop_reason": null, "token_ids": [2041], '
    '"weight_versions": [{"version": "run-7-12", "start": 0, "end": 1}]}]}'
)


def agent_seconds(tokens: int = 8000, trajectories: int = 4) -> float:
    """Seconds a token of `Agent.run` with the paper's protocol, over a sampler that costs nothing."""
    config = load_config(Config, "nano")
    problems = [problem for problem, _ in split(50, 1, 0)[0]]
    tokenizer = train_tokenizer((problem.text for problem in problems), config.model.vocabulary)
    protocol = make_protocol(config.protocol, tokenizer)
    written = (tokenizer.encode("Let x be 12 and y 7, so that x + y = 19. ", add_special_tokens=False) * tokens)[
        :tokens
    ]
    agent = Agent(
        ScriptedSampler(lambda _: written), protocol, None, RolloutConfig(max_tokens=tokens), SamplingConfig()
    )
    tasks = [Task(problem, protocol.prompt_ids(problem.text), "", 0, 0, 0, "") for problem in problems[:trajectories]]

    async def roll_out() -> None:
        await asyncio.gather(*map(agent.run, tasks))

    began = time.perf_counter()
    asyncio.run(roll_out())
    return (time.perf_counter() - began) / (tokens * trajectories)


def event_seconds(events: int = 20_000) -> float:
    """Seconds to parse an event of one token; the network's own work is not counted."""
    began = time.perf_counter()
    for _ in range(events):
        choice = json.loads(_EVENT[6:])["choices"][0]
        [(entry["token_id"], entry["logprob"]) for entry in choice["logprobs"]["content"]]
    return (time.perf_counter() - began) / events
