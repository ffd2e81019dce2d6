"""How tokens are drawn."""

from __future__ import annotations

from pydantic import Field

from retool.config.base import Section


class SamplingConfig(Section):
    temperature: float = Field(1.0, ge=0.0)
    """0 is greedy."""

    top_p: float = Field(1.0, gt=0.0, le=1.0)
    """Keep the smallest set of tokens whose probabilities sum to at least this."""

    top_k: int = Field(0, ge=0)
    """Keep the k most probable tokens; 0 keeps all."""

    min_p: float = Field(0.0, ge=0.0, lt=1.0)
    """Keep tokens at least this probable relative to the most probable one."""
