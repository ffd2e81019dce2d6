"""What an endpoint answered, read strictly: servers that speak the protocol do so with accents."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """A call that the model asks for. `arguments` is meant to be a JSON object, and is what the model wrote."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. `finish` is "stop", "length" (cut off by `max_tokens`), "tool_calls", "content_filter", …

    The tokens are the server's own count, the prompt's and the reply's; 0 where it gives none. `cached`: it was not
    asked for again.
    """

    text: str
    finish: str
    tool_calls: tuple[ToolRequest, ...]
    prompt_tokens: int
    completion_tokens: int
    cached: bool = False

    @property
    def message(self) -> dict[str, Any]:
        """The reply as a message of the conversation, which results of its tool calls may follow."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.tool_calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in self.tool_calls
            ]
        return message


def read_reply(body: Any, cached: bool = False) -> Reply:
    """The first choice of a chat completion. Raises ValueError, saying what is wrong, if `body` is none."""
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ValueError("it has no choices")
    choice = choices[0]
    message = choice.get("message")
    if not isinstance(message, dict):
        raise ValueError("its choice has no message")
    text = message.get("content")
    if text is None:
        text = ""  # as where there are only tool calls
    if not isinstance(text, str):
        raise ValueError(f"its content is a {type(text).__name__}, not a text")
    usage = body.get("usage") or {}
    return Reply(
        text=text,
        finish=choice.get("finish_reason") or "stop",
        tool_calls=tuple(_tool_request(call, n) for n, call in enumerate(message.get("tool_calls") or ())),
        prompt_tokens=usage.get("prompt_tokens") or 0,
        completion_tokens=usage.get("completion_tokens") or 0,
        cached=cached,
    )


def _tool_request(call: Any, number: int) -> ToolRequest:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError("it has a tool call without a function's name")
    arguments = function.get("arguments")
    if not isinstance(arguments, str):  # some servers give the object instead of its JSON
        arguments = json.dumps({} if arguments is None else arguments)
    return ToolRequest(call.get("id") or f"call_{number}", function["name"], arguments)
