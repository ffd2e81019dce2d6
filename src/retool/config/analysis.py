"""Settings of `retool analyze`."""

from __future__ import annotations

from retool.config.base import Section
from retool.config.endpoint import EndpointConfig


class AnalysisConfig(Section):
    judge: EndpointConfig | None = None
    """A model that classifies the purpose of code, beside the rules; null: the rules alone."""
