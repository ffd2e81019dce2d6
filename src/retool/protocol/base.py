"""What a protocol is: how a conversation becomes ids, how a call is found in them, how a result comes back as ids.

Supervised training, RL and evaluation use one and the same object, so that what is trained on is, token by token, what
a rollout writes. Ids are never derived again from a conversation's text: each stretch of text by one author is
tokenized by itself, once, and a result is spliced in behind the ids that asked for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import jinja2
import numpy as np

from retool.config.schema import ProtocolConfig
from retool.errors import UsageError
from retool.protocol.codec import Codec
from retool.types import Author, Kind, Segment, Span, Trace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EMPTY_RESULT = "[no output]"
"""What the model reads where code ended well and printed nothing."""

CONTENT = "RETOOLcontent"
"""Stands for text from outside while a chat template is rendered."""
_NOTHING = np.array([], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Call:
    """A call in a model segment. Either `code` is what is to be run, or `error` is the sentence that tells the model
    why there is nothing to run. `start` is the index in the segment's ids of the token in which the call begins."""

    code: str | None
    error: str | None
    start: int


@dataclass(frozen=True, slots=True)
class Splice:
    """An interpreter span: results with what surrounds them."""

    ids: list[int]
    text: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """A trace as ids: the prompt's, then spans whose authors alternate. The last span is the model's, to its end."""

    prompt_ids: list[int]
    spans: list[Span]

    @property
    def response_ids(self) -> list[int]:
        return [token for span in self.spans for token in span.ids or ()]

    @property
    def model_mask(self) -> list[bool]:
        """For each of `response_ids`: was it written by the model?"""
        return [span.author is Author.MODEL for span in self.spans for _ in span.ids or ()]


def strip_blank_lines(code: str) -> str:
    """`code` without the blank lines around it, and otherwise as it is; "" if there is nothing else."""
    blank = len(code) - len(code.lstrip())
    code = code[code.rfind("\n", 0, blank) + 1 :]
    words = len(code.rstrip())
    end = code.find("\n", words)
    return "" if not words else code if end < 0 else code[:end]


class Protocol(ABC):
    """A convention between model and interpreter, bound to one tokenizer.

    Raises UsageError if the tokenizer lacks a chat template or an end-of-sequence token, or cannot give text back
    exactly.
    """

    name: ClassVar[str]
    instruction: ClassVar[str]
    """What the prompt says before the question, unless the config says otherwise."""
    tags: ClassVar[tuple[str, ...]] = ()
    """Strings that mean something in this protocol: in model text they may be control tokens, in results never."""
    ends_turn: ClassVar[bool] = False
    """Does a call end the model's turn (with several calls in it, if it likes), instead of interrupting it?"""

    def __init__(self, config: ProtocolConfig, tokenizer: PreTrainedTokenizerBase):
        self.codec = Codec(tokenizer)
        if not tokenizer.chat_template:
            raise UsageError(
                f"the tokenizer of {self.codec.model} has no chat template, which says how a prompt begins and ends; "
                "take an instruct model, or put a chat_template.jinja into the model's folder"
            )
        if tokenizer.eos_token_id is None:
            raise UsageError(
                f"the tokenizer of {self.codec.model} has no end-of-sequence token; set eos_token in its "
                "tokenizer_config.json"
            )
        self.config = config
        self._instruction = self.instruction if config.instruction is None else config.instruction
        self.end_id = self._find_end_id()
        """The id that ends the model's turn in the chat template."""
        self.eos_ids = frozenset({tokenizer.eos_token_id, self.end_id})
        """Ids after which nothing more is sampled in the model's turn."""

    # What the model reads.

    def prompt_ids(self, problem_text: str) -> list[int]:
        """The chat template with the problem in it, up to where the model begins. Nothing in `problem_text` becomes a
        control token."""
        content = f"{self._instruction}\n\n{CONTENT}" if self._instruction else CONTENT
        text = self.apply_template([{"role": "user", "content": content}], add_generation_prompt=True)
        before, after = self.split_once(text, CONTENT)
        end = len(before) + len(problem_text)
        return self.codec.encode_template(before + problem_text + after, len(before), end)

    def splice(self, results: Sequence[str]) -> Splice:
        """The interpreter span that answers the calls of one model segment, `results` in their order.

        Nothing that was printed can become a tag or a control token. Trailing newlines are dropped; no output at all
        reads `EMPTY_RESULT`; of a result longer than `config.result_tokens` head and tail are kept.
        """
        frame = self.frame(len(results))
        ids = list(frame[0])
        for result, after in zip(results, frame[1:], strict=True):
            ids += self._result_ids(result)
            ids += after
        return Splice(ids, self.decode(ids))

    def render(self, trace: Trace) -> Rendered:
        """`trace` as ids. UsageError if a rollout could not have produced it, as with a tag in its text."""
        spans: list[Span] = []
        turns = [(author, list(segments)) for author, segments in groupby(trace.segments, key=lambda s: s.author)]
        if turns and turns[0][0] is Author.INTERPRETER:
            self._refuse(trace, "it begins with a result")
        if not turns or turns[-1][0] is Author.INTERPRETER:
            turns.append((Author.MODEL, []))  # the model ends its turn without another word
        for index, (author, segments) in enumerate(turns):
            if author is Author.INTERPRETER:
                splice = self.splice([segment.text for segment in segments])
                spans.append(Span(author, splice.ids, splice.text))
                continue
            results = turns[index + 1][1] if index + 1 < len(turns) else []
            ids = self._model_ids(trace, segments, len(results))
            if not results or self.ends_turn:
                ids.append(self.end_id)
            spans.append(Span(author, ids, self.decode(ids)))
        return Rendered(self.prompt_ids(trace.problem.text), spans)

    # What the model writes.

    @abstractmethod
    def stop(self, ids: Sequence[int]) -> bool:
        """Does the newest of the ids of a model segment complete a call, so that decoding must wait for a result?"""

    @abstractmethod
    def calls(self, ids: Sequence[int]) -> list[Call]:
        """The calls in a model segment that has come to its end."""

    def forbid(self, ids: Sequence[int]) -> np.ndarray:
        """Ids that would complete the opening of a call if sampled next: a shared, read-only int64 array."""
        return _NOTHING

    def decode(self, ids: Sequence[int]) -> str:
        """The exact text of `ids`: special tokens kept, spaces untouched."""
        return self.codec.decode(ids)

    # What a protocol adds.

    @abstractmethod
    def write_call(self, code: str) -> str:
        """The text of a call, from a line's start, without a newline at the end."""

    @abstractmethod
    def frame(self, results: int) -> list[list[int]]:
        """The ids before, between and after that number of results: one list more than there are results."""

    def neutralize(self, result: str) -> str:
        """`result` with the protocol's tags broken up, visibly: the `<` of a tag becomes `&lt;`."""
        for tag in self.tags:
            result = result.replace(tag, "&lt;" + tag[1:])
        return result

    def template_arguments(self) -> dict[str, Any]:
        """What the chat template is given beside the messages."""
        return {}

    # Chat templates.

    def apply_template(self, messages: list[dict[str, Any]], **options: Any) -> str:
        """The text that the tokenizer's chat template makes of `messages`."""
        try:
            return self.codec.tokenizer.apply_chat_template(
                messages, tokenize=False, **self.template_arguments(), **options
            )
        except jinja2.TemplateError as error:
            raise UsageError(f"the chat template of {self.codec.model} fails: {error}") from error

    def split_once(self, text: str, mark: str) -> tuple[str, str]:
        """What stands before and after the one place where a chat template put `mark`."""
        parts = text.split(mark)
        if len(parts) != 2:
            raise UsageError(
                f"the chat template of {self.codec.model} shows a message {len(parts) - 1} times; expected once"
            )
        return parts[0], parts[1]

    def _find_end_id(self) -> int:
        answered = [{"role": "user", "content": "question"}, {"role": "assistant", "content": CONTENT}]
        after = self.codec.encode_template(self.split_once(self.apply_template(answered), CONTENT)[1], 0, 0)
        return after[0] if after and after[0] in self.codec.controls else self.codec.tokenizer.eos_token_id

    # Parts of `splice` and `render`.

    def _result_ids(self, result: str) -> list[int]:
        ids = self.codec.encode(self.neutralize(result.rstrip("\r\n") or EMPTY_RESULT))
        budget = self.config.result_tokens
        if len(ids) <= budget:
            return ids
        head, tail = ids[: budget - budget // 2], ids[-(budget // 2) :]
        for _ in range(3):  # a cut may go through a character of up to four bytes
            head = head[:-1] if self.decode(head).endswith("\ufffd") else head
            tail = tail[1:] if self.decode(tail).startswith("\ufffd") else tail
        omitted = len(ids) - len(head) - len(tail)
        return [*head, *self.codec.encode(f"\n… {omitted} tokens omitted …\n"), *tail]

    def _model_ids(self, trace: Trace, segments: list[Segment], results: int) -> list[int]:
        text, codes = "", []
        for segment in segments:
            if segment.kind is Kind.CODE:
                # A call opens a line of its own.
                text += "\n" * bool(text and not text.endswith("\n")) + self.write_call(segment.text)
                codes.append(strip_blank_lines(self.decode(self.codec.encode(segment.text))))
            else:
                text += segment.text
        if len(codes) != results:
            self._refuse(trace, f"{len(codes)} snippets are followed by {results} results")
        if codes and not self.ends_turn and (len(codes) > 1 or segments[-1].kind is not Kind.CODE):
            self._refuse(trace, "a snippet must be followed by its result")
        ids = self.codec.encode(text, allow=self.tags)
        if [call.code for call in self.calls(ids)] != codes:
            self._refuse(
                trace, "as the words of a model it would not make just these calls; is there a tag in its text or code?"
            )
        return ids

    def _refuse(self, trace: Trace, why: str) -> NoReturn:
        raise UsageError(
            f"the trace of problem {trace.problem.id!r} cannot be written in protocol {self.name!r}: {why}"
        )
