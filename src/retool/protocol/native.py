"""The model's own tool calls: Hermes `<tool_call>` JSON, with everything around it taken from the chat template."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from retool.config.schema import ProtocolConfig
from retool.errors import UsageError
from retool.protocol.base import CONTENT, Call, Protocol, strip_blank_lines
from retool.protocol.marker import Marker

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OPENING, CLOSING = "<tool_call>", "</tool_call>"
TOOL = {
    "type": "function",
    "function": {
        "name": "python",
        "description": "Executes a complete Python script and returns what it prints, or its error.",
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string", "description": "The script, with its imports."}},
            "required": ["code"],
        },
    },
}

_TAG = re.compile(f"{OPENING}|{CLOSING}")
_JSON = json.JSONDecoder(strict=False)  # a newline in a string of code is as good as its escape
_CODE, _RESULT = "RETOOLcode", "RETOOLresult{}."  # found again in what a template renders


class Native(Protocol):
    """A model's turn ends with its calls, one or more; all are answered, in order, in one turn of the other side.

    A call that lacks its closing tag is taken as it is if the JSON is complete, as serving engines do.
    """

    name = "native"
    instruction = (
        "Solve the following problem step by step. Where it helps, call the python tool; not every step needs it. Put "
        "the final answer into \\boxed{}."
    )
    tags = (OPENING, CLOSING, "<tool_response>", "</tool_response>")
    ends_turn = True

    def __init__(self, config: ProtocolConfig, tokenizer: PreTrainedTokenizerBase):
        super().__init__(config, tokenizer)
        question = [{"role": "user", "content": CONTENT}]
        if TOOL["function"]["description"] not in self.apply_template(question, add_generation_prompt=True):
            raise UsageError(
                f"the chat template of {self.codec.model} shows no tools, so protocol 'native' cannot work; take "
                "`tags`, `fenced` or `text`"
            )
        self._opening = Marker(OPENING, self.codec)
        self._frames: dict[int, list[list[int]]] = {}
        self._call_before, self._call_after, _ = self._render_turn(1)
        written = self.calls(self.codec.encode(self.write_call(_CODE), allow=self.tags))
        if [call.code for call in written] != [_CODE]:
            raise UsageError(
                f"the chat template of {self.codec.model} writes a call as {self.write_call(_CODE)!r}; protocol "
                f'\'native\' knows {OPENING}{{"name": …, "arguments": …}}{CLOSING} only; take `tags` or `fenced`'
            )

    def template_arguments(self) -> dict[str, Any]:
        return {"tools": [TOOL]}

    def stop(self, ids: Sequence[int]) -> bool:
        return False  # the model may make another call before it ends its turn

    def calls(self, ids: Sequence[int]) -> list[Call]:
        ended = len(ids) > 0 and ids[-1] in self.eos_ids
        text = self.decode(ids[:-1] if ended else ids)
        calls, position = [], 0
        while tag := _TAG.search(text, position):
            start, position = self.codec.locate(ids, tag.start()), tag.end()
            try:
                if tag[0] == CLOSING:
                    raise MalformedCallError(f"{CLOSING} has no {OPENING} before it")
                arguments, position = _read_json(text, position)
                calls.append(Call(requested_code(arguments), None, start))
            except MalformedCallError as error:
                calls.append(Call(None, f"Nothing was executed: {error}.", start))
                if (next_tag := _TAG.search(text, position)) and next_tag[0] == CLOSING and tag[0] == OPENING:
                    position = next_tag.end()
        return calls

    def forbid(self, ids: Sequence[int]) -> np.ndarray:
        return self._opening.completions(ids)

    def write_call(self, code: str) -> str:
        return self._call_before + json.dumps(code, ensure_ascii=False) + self._call_after

    def frame(self, results: int) -> list[list[int]]:
        if results not in self._frames:
            pieces = self._render_turn(results)[2]
            self._frames[results] = [self.codec.encode_template(piece, 0, 0) for piece in pieces]
        return self._frames[results]

    def _render_turn(self, results: int) -> tuple[str, str, list[str]]:
        """As the chat template has it: what stands in a call before and after the string of code; then what stands,
        after the model's turn, before, between and after that number of results."""
        call = {"type": "function", "function": {"name": "python", "arguments": {"code": _CODE}}}
        marks = [_RESULT.format(index) for index in range(results)]
        messages = [
            {"role": "user", "content": "question"},
            {"role": "assistant", "content": CONTENT, "tool_calls": [call]},
            *({"role": "tool", "name": "python", "content": mark} for mark in marks),
        ]
        _, text = self.split_once(self.apply_template(messages, add_generation_prompt=True), CONTENT)
        before, text = self.split_once(text, f'"{_CODE}"')
        after, end, text = text.partition(self.decode([self.end_id]))
        if not end:
            raise UsageError(f"the chat template of {self.codec.model} does not end the turn after a tool call")
        pieces = []
        for mark in marks:
            piece, text = self.split_once(text, mark)
            pieces.append(piece)
        return before.lstrip("\n"), after, [*pieces, text]


class MalformedCallError(Exception):
    """Why a call cannot be executed: a clause for the sentence that the model is told."""


def _read_json(text: str, position: int) -> tuple[Any, int]:
    """The JSON value of a call whose tag ends at `position`, and where the call ends."""
    position += len(text[position:]) - len(text[position:].lstrip())
    try:
        value, position = _JSON.raw_decode(text, position)
    except (ValueError, RecursionError) as error:  # a ValueError, too, for numbers of more digits than Python reads
        raise MalformedCallError(f"what stands after {OPENING} is not valid JSON ({error})") from error
    rest = text[position:].lstrip()
    if rest.startswith(CLOSING):
        return value, text.index(CLOSING, position) + len(CLOSING)
    if rest and not rest.startswith(OPENING):
        raise MalformedCallError(f"{CLOSING} was expected after the JSON of the call")
    return value, position


def requested_code(call: Any) -> str:
    """The code that a call's JSON asks to be run. Raises MalformedCallError."""
    if not isinstance(call, dict) or "name" not in call or not isinstance(call.get("arguments"), dict):
        raise MalformedCallError('a call must look like {"name": "python", "arguments": {"code": "…"}}')
    if call["name"] != "python":
        raise MalformedCallError(f"there is no tool {str(call['name'])[:40]!r}, only 'python'")
    code = call["arguments"].get("code")
    if not isinstance(code, str):
        raise MalformedCallError("the argument 'code' must be a string")
    if not code.strip():
        raise MalformedCallError("the argument 'code' is empty")
    if any("\ud800" <= character <= "\udfff" for character in code):
        raise MalformedCallError("the code holds half a surrogate pair, which is no character")
    return strip_blank_lines(code)
