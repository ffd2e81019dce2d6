"""Settings of `retool synth`."""

from __future__ import annotations

from pydantic import Field

from retool.config.base import Section


class SynthConfig(Section):
    code_share: float = Field(1.0, ge=0.0, le=1.0)
    """Share of the traces that are rewritten into code. The rest stay text, which leaves to RL the choice when to call;
    the paper's cold-start model called in a part of its responses only."""
