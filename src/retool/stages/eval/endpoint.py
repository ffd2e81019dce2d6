"""A model behind an OpenAI-compatible endpoint, evaluated by messages instead of token ids."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from retool.config.sampling import SamplingConfig
from retool.config.schema import Config
from retool.endpoint import Endpoint
from retool.errors import UsageError
from retool.files import publish
from retool.grading import Grader
from retool.protocol.native import Native
from retool.protocol.text import Text
from retool.rollout.agent import Task
from retool.rollout.collect import collect
from retool.rollout.messages import CHARACTERS_PER_TOKEN, MessageAgent, user_message
from retool.rollout.meter import Meter
from retool.rollout.timeline import Timeline
from retool.sandbox import Sandbox
from retool.stages.progress import Progress
from retool.stages.workbench import Rollout
from retool.types import Problem, Trajectory


@dataclass(frozen=True, slots=True)
class EndpointBench:
    """What rolls out trajectories of an endpoint's model: a `Workbench` without ids."""

    config: Config
    endpoint: Endpoint
    sandbox: Sandbox | None
    grader: Grader
    model_name: str
    arm: str
    protocol: None = None

    @property
    def instruction(self) -> str:
        """That of the native protocol, or of the text-only one, unless the config has another."""
        given = self.config.protocol.instruction
        return (Native if self.sandbox else Text).instruction if given is None else given

    def prompt(self, problem_text: str) -> list[dict[str, Any]]:
        return [user_message(self.instruction, problem_text)]

    async def roll_out(
        self,
        problems: Sequence[Problem],
        *,
        step: int,
        samples: int,
        sampling: SamplingConfig,
        progress: Progress,
        interpreter: bool = True,
        timeline: Path | None = None,
        calls: int | None = None,
        done: Collection[tuple[str, int]] = (),
        finished: Callable[[Trajectory], None] | None = None,
    ) -> Rollout:
        """`samples` graded trajectories of each problem; see `Workbench.roll_out`."""
        limits = self.config.rollout if calls is None else self.config.rollout.model_copy(update={"max_calls": calls})
        recorded = Timeline() if timeline and self.config.rollout.timeline else None
        meter = Meter(recorded, progress.rollout_changed)
        agent = MessageAgent(
            self.endpoint,
            self.sandbox,
            limits,
            sampling,
            self.instruction,
            self.config.protocol.result_tokens * CHARACTERS_PER_TOKEN,
            meter,
            calls=calls if interpreter else 0,
        )
        tasks = [
            Task(problem, None, self.arm, self.config.seed, step, sample, self.model_name)
            for problem in problems
            for sample in range(samples)
            if (problem.id, sample) not in done
        ]
        progress.begin_rollout(len(tasks), lambda: 0.0)
        trajectories = await collect(agent, tasks, self.grader, finished=finished)
        if recorded:
            publish(timeline, recorded.to_json())
        usage = {f"endpoint_{name}": count for name, count in asdict(self.endpoint.usage).items()}
        return Rollout(trajectories, meter.record() | usage)

    def isolation(self) -> dict[str, Any] | None:
        return self.sandbox.isolation if self.sandbox else None


@asynccontextmanager
async def open_endpoint(config: Config, arm: str, cache: Path) -> AsyncIterator[EndpointBench]:
    """A bench on `eval.endpoint`; replies are kept in `cache`. Raises UsageError for what an endpoint cannot do."""
    sampling = config.eval.sampling
    if sampling.top_k or sampling.min_p:
        raise UsageError(
            "an endpoint takes temperature and top_p only; set eval.sampling.top_k=0 and eval.sampling.min_p=0"
        )
    if config.rollout.deterministic:
        raise UsageError(
            "an endpoint cannot give the same bytes twice, which rollout.deterministic=true asks for; set it to false"
        )
    sandbox = None if config.protocol.name == "text" else Sandbox(config.sandbox)
    async with Endpoint(config.eval.endpoint, cache) as endpoint, sandbox or nullcontext():
        with Grader() as grader:
            yield EndpointBench(config, endpoint, sandbox, grader, config.eval.endpoint.model, arm)
