"""Asking a model about one row, which must not end the work on all others."""

from __future__ import annotations

from typing import Any

from retool.endpoint import Endpoint, Refused
from retool.traces import Reason, Rejection

_PROBE = [{"role": "user", "content": "Reply with the word ready."}]


async def say(endpoint: Endpoint, messages: list[dict[str, Any]], key: int = 0) -> str | Rejection:
    """What the model replies; a Rejection if the reply is cut short, or if this request is refused and others are not.

    Raises what `Endpoint.chat` does: for an endpoint that is wrong, gone or paid out.
    """
    try:
        reply = await endpoint.chat(messages, key=key)
    except Refused as refusal:
        await endpoint.chat(_PROBE, max_tokens=16)  # is it the request, or everything?
        return Rejection(Reason.REFUSED, str(refusal))
    if reply.finish == "length":
        return Rejection(Reason.REPLY_CUT_SHORT, f"{reply.completion_tokens} tokens, ending {reply.text[-80:]!r}")
    return reply.text
