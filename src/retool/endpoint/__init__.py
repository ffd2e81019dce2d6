"""Chat endpoints that speak OpenAI's protocol: teachers, judges, and models to evaluate.

    async with Endpoint(config, cache=Path("replies")) as endpoint:
        reply = await endpoint.chat([{"role": "user", "content": "What is 6 * 7?"}])

Requests share a limit of concurrency, rates and cost; what fails for a moment is tried again, and a reply that is in
the cache is not paid for twice.
"""

from retool.endpoint.client import Endpoint, Refused
from retool.endpoint.reply import Reply, ToolRequest
from retool.endpoint.usage import Usage

__all__ = ["Endpoint", "Refused", "Reply", "ToolRequest", "Usage"]
