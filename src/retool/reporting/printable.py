"""Text of models and of code that they ran, made safe to show: it is hostile until shown otherwise."""

from __future__ import annotations

import re

ESCAPE_SEQUENCE = re.compile(
    r"\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)"  # OSC: window titles, links, clipboard
    r"|\x1b[PX^_][^\x1b\n]*\x1b\\"  # DCS, SOS, PM, APC
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI: colours, cursor, erase
    r"|\x1b[ -/]*[0-~]?"  # the short ones, and the opening of a long one that has no end: its text stays readable
)
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
REORDERING = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # text that reads otherwise than it runs
SURROGATE = re.compile("[\ud800-\udfff]")  # from JSON such as "\ud800"; cannot be written as UTF-8


def printable(text: str) -> str:
    """`text` without terminal control codes and direction overrides; line ends become \\n, lone surrogates U+FFFD."""
    text = ESCAPE_SEQUENCE.sub("", text)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = REORDERING.sub("", CONTROL.sub("", text))
    return SURROGATE.sub("\ufffd", text)
