"""Settings of `retool synth`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from retool.config.base import Section
from retool.config.endpoint import EndpointConfig


class HarvestConfig(Section):
    """Of `rewrite: harvest`. How it samples and what a response may take are `sampling`, `protocol` and `rollout`."""

    samples: int = Field(8, gt=0)
    """Responses per problem."""

    per_problem: int = Field(1, gt=0)
    """Successes that are kept of a problem at most, the first ones."""

    pass_rate: tuple[float, float] = (0.0, 1.0)
    """Problems are kept whose share of right responses is in here, both ends included; [0.1, 0.9] leaves out what is
    learned already and what is out of reach."""

    @model_validator(mode="after")
    def _the_window_is_one(self) -> Self:
        """Raises ValueError with a sentence for the user, as all of the config's own checks do."""
        low, high = self.pass_rate
        if not 0.0 <= low <= high <= 1.0:
            raise ValueError(
                f"synth.harvest.pass_rate must be two shares in order, such as [0.1, 0.9]; found {[low, high]}"
            )
        return self


class SynthConfig(Section):
    rewrite: Literal["rules", "teacher", "harvest"] = "rules"
    """Where code traces come from: `rules` turn written calculations into code; a `teacher` model rewrites solutions,
    as in the paper; `harvest` rolls out the model at `model.path` with the interpreter and keeps its successes."""

    code_share: float = Field(1.0, ge=0.0, le=1.0)
    """Share of the traces that are rewritten into code. The rest stay text, which leaves to RL the choice when to call;
    the paper's cold-start model called in a part of its responses only."""

    decontaminate: tuple[str, ...] = ()
    """Evaluation sets, by name or as files, whose problems must not be among the sources: [aime24, aime25]."""

    ngram: int = Field(13, ge=6)
    """Words in a row that a source must not share with an evaluation problem."""

    judge: EndpointConfig | None = None
    """A model that rejects unsound problems and solutions before they are rewritten; null: none does."""

    review: float = Field(0.0, ge=0.0, le=1.0)
    """Share of the solutions that people accept or reject, in the file review.md, before any is rewritten."""

    teacher: EndpointConfig | None = None
    """The model of `rewrite: teacher`."""

    harvest: HarvestConfig = HarvestConfig()

    max_calls: int | None = Field(None, gt=0)
    """Traces with more calls are left out; null: none is."""

    per_calls: int | None = Field(None, gt=0)
    """Of the traces with the same number of calls, so many are kept, drawn by the seed, besides those that correct
    themselves; null: all."""

    @model_validator(mode="after")
    def _a_teacher_is_there(self) -> Self:
        """Raises ValueError with a sentence for the user, as all of the config's own checks do."""
        if self.rewrite == "teacher" and self.teacher is None:
            raise ValueError(
                "synth.rewrite=teacher needs one: set synth.teacher.url and synth.teacher.model, the address and the "
                "name of a model behind an OpenAI-compatible endpoint"
            )
        return self
