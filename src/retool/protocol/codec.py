"""Text to token ids and back, exactly, and without anything in the text turning into a control token by accident."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from retool.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE = ("a  b", "\n<c>\n", " d . 's\n\n", "  é = {x!r}")


class Codec:
    """A tokenizer, narrowed to what is exact.

    `encode` lets only chosen control tokens appear, however the text came about. A tokenizer's `split_special_tokens`
    is not enough for that: it spares added tokens that are not marked special, such as Qwen's `<tool_call>`. The text
    is therefore cut after the first character of every control token in it; no piece contains the whole, so none can
    become its id, and the pieces together still decode to the text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self.model = tokenizer.name_or_path or "this model"
        added = tokenizer.added_tokens_decoder
        # Some vocabularies add runs of spaces or newlines. They are plain text.
        self.controls = {
            i: t.content for i, t in added.items() if t.special or (t.content.strip() and len(t.content) > 1)
        }
        self._patterns: dict[frozenset[str], re.Pattern[str]] = {}  # by what is allowed: finds what is not
        pieces = [self.encode(piece) for piece in _PROBE]
        found = self.decode([token for ids in pieces for token in ids])
        if found != "".join(_PROBE):
            raise UsageError(
                f"the tokenizer of {self.model} does not give text back exactly: "
                f"{''.join(_PROBE)!r} became {found!r}; "
                "take a model with a byte-level tokenizer"
            )

    def encode(self, text: str, allow: Iterable[str] = ()) -> list[int]:
        """Ids of `text`; of the control tokens only those in `allow` can be among them."""
        return self.encode_template(text, 0, len(text), allow)

    def encode_template(self, text: str, start: int, end: int, allow: Iterable[str] = ()) -> list[int]:
        """Ids of `text`, of which only `text[start:end]` comes from outside: no control token begins and ends there.

        Around it control tokens are what they look like. All of `text` is encoded in one go unless there is something
        to take apart, so that tokens merge over `start` and `end` as the tokenizer would have it.
        """
        ids: list[int] = []
        for piece in self._pieces(text, start, end, frozenset(allow)):
            # Lone surrogates, which JSON can carry and UTF-8 cannot, become their escapes.
            piece = piece.encode("utf-8", "backslashreplace").decode("utf-8")
            ids += self.tokenizer.encode(piece, add_special_tokens=False, verbose=False)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`: special tokens kept, spaces untouched."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def locate(self, ids: Sequence[int], offset: int) -> int:
        """Index in `ids` of the token that holds character `offset` of their text."""
        low, high = 0, len(ids) - 1  # bisection, as characters may span tokens: only whole prefixes decode faithfully
        while low < high:
            middle = (low + high) // 2
            if len(self.decode(ids[: middle + 1])) > offset:
                high = middle
            else:
                low = middle + 1
        return low

    @cached_property
    def texts(self) -> list[str]:
        """What each id decodes to by itself. Bytes that are no whole character show as U+FFFD; ASCII always shows."""
        return self.tokenizer.backend_tokenizer.decode_batch(
            [[token] for token in range(len(self.tokenizer))], skip_special_tokens=False
        )

    def _pieces(self, text: str, start: int, end: int, allow: frozenset[str]) -> Iterator[str]:
        if allow not in self._patterns:
            forbidden = [re.escape(control) for control in self.controls.values() if control not in allow]
            self._patterns[allow] = re.compile("|".join(forbidden) or r"(?!)")
        done, position = 0, start
        while match := self._patterns[allow].search(text, position, end):
            position = match.start() + 1  # control tokens may overlap: search on from the cut
            yield text[done:position]
            done = position
        yield text[done:]
