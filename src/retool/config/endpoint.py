"""Settings of an OpenAI-compatible chat endpoint: a teacher, a judge, or a model to evaluate."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from retool.config.base import Section


class EndpointConfig(Section):
    url: str
    """Base address, such as https://api.openai.com/v1 or http://127.0.0.1:8000/v1."""

    model: str
    """The model's name there."""

    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; servers of one's own need none."""

    temperature: float = Field(1.0, ge=0.0)
    top_p: float = Field(1.0, gt=0.0, le=1.0)

    max_tokens: int = Field(8192, gt=0)
    """Longest reply."""

    concurrency: int = Field(16, gt=0)
    """Requests under way at the same time."""

    requests_per_minute: int | None = Field(None, gt=0)
    tokens_per_minute: int | None = Field(None, gt=0)
    """Rates that are kept to in any 60 seconds; null: whatever the server takes. A request counts with its prompt and
    `max_tokens` until its reply says what it took."""

    price_in: float = Field(0.0, ge=0.0)
    price_out: float = Field(0.0, ge=0.0)
    """Prices of a million tokens of prompts and of replies, in any currency."""

    max_cost: float | None = Field(None, gt=0.0)
    """No request is sent once one command's have cost this much; null: no limit."""

    timeout: float = Field(600.0, gt=0.0)
    """Seconds until a request is given up and tried again."""

    retries: int = Field(6, ge=0)
    """Further attempts after a time-out, a lost connection, or an answer of 429 or 5xx."""

    cache: str | None = None
    """Folder of replies that need not be paid for twice; null: one beside the output."""

    @model_validator(mode="after")
    def _it_can_be_reached_and_paid(self) -> Self:
        """Raises ValueError with a sentence for the user, as all of the config's own checks do."""
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"an endpoint's url begins with http:// or https://, found {self.url!r}")
        if self.max_cost is not None and not self.price_in and not self.price_out:
            raise ValueError(f"max_cost={self.max_cost} needs price_in and price_out, the prices of a million tokens")
        return self
