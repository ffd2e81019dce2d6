"""Settings of an OpenAI-compatible chat endpoint: a teacher, a judge, or a model to evaluate."""

from __future__ import annotations

from pydantic import Field

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
    """Rates that are kept to, prompts and replies together; null: whatever the server takes."""

    price_in: float = Field(0.0, ge=0.0)
    price_out: float = Field(0.0, ge=0.0)
    """Prices of a million tokens of prompts and of replies, in any currency."""

    max_cost: float | None = Field(None, gt=0.0)
    """Requests stop once they have cost this much; null: no limit."""

    timeout: float = Field(600.0, gt=0.0)
    """Seconds until a request is given up and tried again."""

    retries: int = Field(6, ge=0)
    """Further attempts after a time-out, a lost connection, or an answer of 429 or 5xx."""

    cache: str | None = None
    """Folder of replies that need not be paid for twice; null: one beside the output."""
