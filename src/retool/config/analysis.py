"""Settings of `retool analyze`."""

from __future__ import annotations

from pydantic import Field

from retool.config.base import Section
from retool.config.endpoint import EndpointConfig


class AnalysisConfig(Section):
    judge: EndpointConfig | None = None
    """A model that classifies the purpose of code, beside the rules; null: the rules alone."""

    judge_calls: int | None = Field(500, gt=0)
    """Calls that the judge is asked about, drawn at random; null: all of them."""
