"""What requests have taken and cost."""

from __future__ import annotations

from dataclasses import dataclass

from retool.endpoint.reply import Reply


@dataclass(slots=True)
class Usage:
    """Counters of one `Endpoint`: replies that the server gave, those that the cache did, attempts that failed and were
    made again, tokens by the server's count, and `cost` in the currency of the config's prices."""

    requests: int = 0
    cached: int = 0
    retried: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0

    def add(self, reply: Reply, price_in: float, price_out: float) -> None:
        """Count a reply that the server gave; prices are those of a million tokens."""
        self.requests += 1
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens
        self.cost += (reply.prompt_tokens * price_in + reply.completion_tokens * price_out) / 1e6
