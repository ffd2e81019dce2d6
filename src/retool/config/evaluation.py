"""Settings of `retool eval`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from retool.config.base import Section
from retool.config.endpoint import EndpointConfig
from retool.config.sampling import SamplingConfig


class EvalConfig(Section):
    samples: int = Field(1, gt=0)
    """Responses per problem: k of avg@k. The paper takes 32."""

    interpreter: Literal["on", "off"] = "on"
    """`off`: the same prompt, but the opening of a call is never sampled."""

    sampling: SamplingConfig = SamplingConfig(top_p=0.7)
    """How evaluations sample; temperature 1.0 and top-p 0.7 are the paper's."""

    endpoint: EndpointConfig | None = None
    """Evaluate a model behind an OpenAI-compatible endpoint, by messages; null: the model at `model.path`."""
