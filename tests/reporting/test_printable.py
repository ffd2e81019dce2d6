"""What may be shown of hostile text."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retool.reporting import printable

FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x = 1\n\ty = 2", "x = 1\n\ty = 2"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("\x1b]0;a new title\x07after", "after"),
        ("\x1b]8;;http://example.org\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]0;never closed\nafter", "0;never closed\nafter"),
        ("\x1bPdevice\x1b\\after", "after"),
        ("\x1bcreset", "reset"),
        ("bell\x07 null\x00 delete\x7f", "bell null delete"),
        ("10%\r20%\r\n30%", "10%\n20%\n30%"),
        ("if admin\u202e # \u2066", "if admin # "),
        ("half of a \ud83d pair", "half of a \ufffd pair"),
        ("naïve café 数学 \U0001f600", "naïve café 数学 \U0001f600"),
    ],
)
def test_control_codes_go_and_text_stays(text, shown):
    assert printable(text) == shown


@given(st.text(alphabet=st.characters(codec=None), max_size=60) | st.text(alphabet="\x1b\x9b]\\[PX;0mc\x07\r\nab "))
def test_nothing_is_left_to_strip_and_all_can_be_written(text):
    shown = printable(text)
    assert not FORBIDDEN.search(shown)
    assert printable(shown) == shown
    shown.encode()
