"""The scheduler in simulated time: agent loops over samplers, sandboxes and the learner, in the three modes.

A trajectory takes turns with its sampler and the sandbox of its node. `sync`: a batch is sampled, then learned from,
then the samplers get the weights. `one_step_off`: the next batch is sampled meanwhile. `async`: a trajectory is started
whenever a row is free, as long as all that were started can be learned from within `staleness` versions
(arXiv 2505.24298, eq. 3). The oldest are learned from first, and the learner waits where newer ones would take the
places of older ones that could then not be learned from in time. Weights change in the middle of trajectories.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field

import simpy

from scaling.sampler import SimulatedSampler, StepTime
from scaling.workload import Turns


@dataclass(frozen=True, slots=True)
class System:
    """`read_seconds` of a token that is read; a step learns from `batch` trajectories in `learn_seconds` (of their
    tokens); `transfer_seconds` of new weights. `workers` calls run at a time in each of `sandboxes`."""

    samplers: int
    rows: int
    step: StepTime
    read_seconds: float
    batch: int
    learn_seconds: Callable[[int], float] = lambda tokens: 0.0
    transfer_seconds: float = 0.0
    mode: str = "sync"
    staleness: int = 2
    sandboxes: int = 1
    workers: int = 48


@dataclass(slots=True)
class Outcome:
    """What came of it once the system was under way. `sampling` is the share of the tokens that full samplers would
    have written in the same time, `learning` the share of it in which the learner computed."""

    seconds: float
    steps: int
    trajectories: int
    tokens: int
    sampling: float
    learning: float
    staleness: list[int] = field(default_factory=list)

    @property
    def step_seconds(self) -> float:
        return self.seconds / self.steps

    @property
    def trajectories_per_second(self) -> float:
        return self.trajectories / self.seconds


@dataclass(slots=True)
class _Trajectory:
    turns: Turns
    version: int = 0

    @property
    def tokens(self) -> int:
        return sum(turn.new_tokens + turn.tokens for turn in self.turns)


_Then = Callable[[_Trajectory], None]


def simulate(system: System, turns: Sequence[Turns], steps: int) -> Outcome:
    """Run `steps` steps over the trajectories, in order and again from the front. The first third of them, in which an
    asynchronous system fills up, is not counted."""
    return _Run(system, turns).outcome(steps)


class _Run:
    def __init__(self, system: System, turns: Sequence[Turns]):
        self.system, self.env = system, simpy.Environment()
        env = self.env
        make = [SimulatedSampler(env, system.step, system.rows, system.read_seconds) for _ in range(system.samplers)]
        self.samplers = make
        self.sandboxes = [simpy.Resource(env, system.workers) for _ in range(system.sandboxes)]
        self.version = self.started = self.resting = self.under_way = 0
        self.finished: list[_Trajectory] = []
        self.unfinished: Counter[int] = Counter()  # by the version of the first token, as is the next
        self.complete: Counter[int] = Counter()
        self.learning = 0.0
        self.learned: list[_Trajectory] = []
        self.staleness: list[int] = []
        self._turns, self._next = turns, 0
        self._wanted = env.event()

    def outcome(self, steps: int) -> Outcome:
        main = {"sync": self._sync, "one_step_off": self._one_step_off, "async": self._async}[self.system.mode]
        marks: list[tuple[float, float, float, int]] = []
        ended = self.env.process(main(steps, marks))
        self.env.run(ended)
        skipped = steps // 3
        (began, learning, tokens, done), last = marks[skipped - 1] if skipped else (0.0, 0.0, 0.0, 0), marks[-1]
        seconds = last[0] - began
        learned = self.learned[done:]
        written = sum(sampler.tokens for sampler in self.samplers) - tokens
        return Outcome(
            seconds=seconds,
            steps=steps - skipped,
            trajectories=len(learned),
            tokens=sum(trajectory.tokens for trajectory in learned),
            sampling=written / (self._full_rate() * seconds),
            learning=(last[1] - learning) / seconds,
            staleness=self.staleness[done:],
        )

    def _full_rate(self) -> float:
        """Tokens per second of all samplers with all rows decoding, at the mean context of a decoding row."""
        rows = self.system.rows
        held = [turn.tokens for turns in self._turns for turn in turns]
        contexts = list(self._contexts())
        cached = rows * sum(w * c for w, c in zip(held, contexts, strict=True)) / max(1, sum(held))
        return self.system.samplers * rows / (self.system.step.fixed(rows) + self.system.step.token_seconds * cached)

    def _contexts(self) -> Iterator[float]:
        """The mean tokens in the cache while each turn is written."""
        for turns in self._turns:
            held = 0
            for turn in turns:
                yield held + turn.new_tokens + turn.tokens / 2
                held += turn.new_tokens + turn.tokens

    # The modes

    def _sync(self, steps: int, marks: list) -> Generator:
        for _ in range(steps):
            batch = yield from self._batch()
            yield from self._learn(batch)
            yield self.env.timeout(self.system.transfer_seconds)
            self._mark(marks)

    def _one_step_off(self, steps: int, marks: list) -> Generator:
        batch = yield from self._batch()
        for step in range(steps):
            following = self.env.process(self._batch()) if step + 1 < steps else None
            yield from self._learn(batch)
            if following is not None:
                batch = yield following
            yield self.env.timeout(self.system.transfer_seconds)
            self._mark(marks)

    def _async(self, steps: int, marks: list) -> Generator:
        self._fill()
        for _ in range(steps):
            while not self._ready():
                self._wanted = self.env.event()
                yield self._wanted
            self.finished.sort(key=lambda trajectory: trajectory.version)
            batch, self.finished = self.finished[: self.system.batch], self.finished[self.system.batch :]
            self.complete -= Counter(trajectory.version for trajectory in batch)
            yield from self._learn(batch)
            for sampler in self.samplers:
                sampler.pause(self.system.transfer_seconds)
            self._fill()
            yield self.env.timeout(self.system.transfer_seconds)
            self._mark(marks)

    def _mark(self, marks: list) -> None:
        written = sum(sampler.tokens for sampler in self.samplers)
        marks.append((self.env.now, self.learning, written, len(self.learned)))

    def _ready(self) -> bool:
        """There is a batch; and once the oldest of it are learned from, what is left of each version can still be."""
        version, batch = self.version, self.system.batch
        if len(self.finished) < batch:
            return False
        ready = late = 0
        for first in sorted({*self.complete, *self.unfinished}):
            ready += self.complete[first]
            late += self.unfinished[first]
            room = max(0, first + self.system.staleness - version) * batch
            if late + ready - min(batch, ready) > room:
                return False
        return True

    # Their parts

    def _batch(self) -> Generator:
        """A batch from its first token to its last; the samplers share it evenly."""
        trajectories = [self._draw() for _ in range(self.system.batch)]
        running = [self.env.process(self._roll_out(trajectory)) for trajectory in trajectories]
        yield self.env.all_of(running)
        return trajectories

    def _fill(self) -> None:
        """Start as many trajectories as have a row, if they can still be learned from in time."""
        system = self.system
        most = (self.version + system.staleness + 1) * system.batch
        rows = system.samplers * system.rows
        while self.started < most and self.under_way < rows + self.resting:
            self.env.process(self._roll_out(self._draw(), self._finish))

    def _draw(self) -> _Trajectory:
        self._next += 1
        self.started += 1
        return _Trajectory(self._turns[(self._next - 1) % len(self._turns)], self.version)

    def _roll_out(self, trajectory: _Trajectory, then: _Then | None = None) -> Generator:
        index = min(range(len(self.samplers)), key=lambda i: self.samplers[i].load)
        sampler = self.samplers[index]
        sandbox = self.sandboxes[index * len(self.sandboxes) // len(self.samplers)]
        sampler.load += 1
        self.under_way += 1
        held = 0

        def note_version() -> None:
            trajectory.version = self.version
            self.unfinished[self.version] += 1

        for number, turn in enumerate(trajectory.turns):
            first = number == 0
            yield sampler.decode(
                held, turn.new_tokens, turn.tokens, first=first, on_start=note_version if first else None
            )
            held += turn.new_tokens + turn.tokens
            if turn.tool_seconds is not None:
                self.resting += 1
                if then:
                    self._fill()
                with sandbox.request() as place:
                    yield place
                    yield self.env.timeout(turn.tool_seconds)
                self.resting -= 1
        sampler.load -= 1
        self.under_way -= 1
        self.unfinished[trajectory.version] -= 1
        if then:
            then(trajectory)

    def _finish(self, trajectory: _Trajectory) -> None:
        self.finished.append(trajectory)
        self.complete[trajectory.version] += 1
        self._fill()
        if self._ready() and not self._wanted.triggered:
            self._wanted.succeed()

    def _learn(self, batch: list[_Trajectory]) -> Generator:
        seconds = self.system.learn_seconds(sum(trajectory.tokens for trajectory in batch))
        self.staleness += [self.version - trajectory.version for trajectory in batch]
        self.learning += seconds
        yield self.env.timeout(seconds)
        self.learned += batch
        self.version += 1
