"""What published data sets put around their problems and answers, taken off."""

from __future__ import annotations

import re

from retool.data.boxes import boxes_from_the_last

_THOUGHT_MARK = re.compile(r"<\|(?:begin|end)_of_(?:thought|solution)\|>\s*")


def after_hashes(text: str) -> str:
    """GSM8K's `… #### 1,234` → `1234`; a text without the mark is the answer itself."""
    return text.rsplit("####", 1)[-1].strip().replace(",", "")


def before_hashes(text: str) -> str:
    return text.rsplit("####", 1)[0].rstrip()


def last_box(text: str) -> str:
    """The content of the last complete `\\boxed{…}`, "" if a text of several words has none. A text without a box that
    is a single word is the answer itself."""
    for content in boxes_from_the_last(text):
        if content is not None:
            return content.strip()
    return text.strip() if len(text.split()) == 1 else ""


def without_dapo_wrapper(text: str) -> str:
    """DAPO's prompts ask for a last line `Answer: …`, which contradicts `\\boxed{}`; only the question is kept."""
    text = re.sub(r"\ASolve the following math problem step by step\..*?\n\n", "", text, flags=re.DOTALL)
    return re.sub(r'\n\nRemember to put your answer on its own line after "Answer:"\.\s*\Z', "", text)


def without_retool_wrapper(text: str) -> str:
    """ReTool's prompts say how to call the interpreter and how to answer; only the question is kept."""
    question = text.rsplit("*user question:*", 1)[-1].lstrip()
    question = re.sub(r"\A[^\n]*\\boxed\{answer\}[^\n]*\n", "", question)
    return re.sub(r"\n\s*Remember to place the final answer in the last part.*\Z", "", question, flags=re.DOTALL)


def without_thought_marks(text: str) -> str:
    """OpenThoughts' marks around thoughts and solutions, and the request for a box before its mathematical problems."""
    text = re.sub(r"\AReturn your final response within \\boxed\{\}\.\s*", "", text)
    return _THOUGHT_MARK.sub("", text).strip()
