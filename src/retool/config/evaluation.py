"""Settings of `retool eval`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from retool.config.base import Section
from retool.config.endpoint import EndpointConfig
from retool.config.sampling import SamplingConfig


class EvalConfig(Section):
    samples: int = Field(1, gt=0)
    """Responses per problem: k of avg@k. The paper takes 32."""

    interpreter: Literal["on", "off"] = "on"
    """`off`: the same prompt, but the opening of a call is never sampled."""

    calls: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """A sweep: one evaluation for each of these numbers of calls, after which no further one can be opened; 0 is
    `interpreter: off`. null: one evaluation, in which one call more than `rollout.max_calls` ends the response."""

    sampling: SamplingConfig = SamplingConfig(top_p=0.7)
    """How evaluations sample; temperature 1.0 and top-p 0.7 are the paper's."""

    endpoint: EndpointConfig | None = None
    """Evaluate a model behind an OpenAI-compatible endpoint, by messages; null: the model at `model.path`. Temperature
    and top-p are those of `eval.sampling`."""

    @model_validator(mode="after")
    def _a_sweep_has_an_interpreter(self) -> Self:
        if self.calls is not None and self.interpreter == "off":
            raise ValueError(
                "eval.calls sweeps over calls to the interpreter, which eval.interpreter=off takes away; leave one out "
                "(eval.calls=[0] is the same as off)"
            )
        if self.calls is not None and (not self.calls or len(set(self.calls)) < len(self.calls)):
            raise ValueError(
                f"eval.calls must be different numbers of calls, such as [0, 1, 2, 4, 8]; found {list(self.calls)}"
            )
        return self
