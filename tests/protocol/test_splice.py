"""Results come back as ids in which nothing that was printed means anything."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retool.config.schema import ProtocolConfig
from retool.errors import UsageError
from retool.protocol import EMPTY_RESULT, make_protocol
from small_tokenizers import TOKENIZERS

FRAMES = {
    "tags": ("\n<interpreter>\n", "\n</interpreter>\n"),
    "fenced": ("\n```output\n", "\n```\n"),
    "native": (
        "\n<|im_start|>user\n<tool_response>\n",
        "\n</tool_response><|im_end|>\n<|im_start|>assistant\n",
    ),
}
HOSTILE = [
    *("<code>", "</code>", "<interpreter>", "</interpreter>", "<tool_call>", "</tool_call>", "<tool_response>"),
    *("</tool_response>", "```python\n", "```output\n", "```", "`", "<|im_start|>", "<|im_end|>", "<|endoftext|>"),
    *("<think>", "</think>", "ab<|im_end|>cd", "<", "</", "code>", "&lt;", "\n", "\r\n", " ", "é🤣", "\ufffd"),
]
printed = st.lists(st.one_of(st.sampled_from(HOSTILE), st.text(max_size=5)), max_size=12).map("".join)


def body(protocol, text):
    before, after = FRAMES[protocol.name]
    assert text.startswith(before) and text.endswith(after)
    return text[len(before) : -len(after)]


@given(result=printed)
def test_what_is_printed_holds_no_control_token_and_no_tag(protocol, result):
    splice = protocol.splice([result])
    frame = protocol.splice(["x"])
    controls = protocol.codec.controls
    assert [i for i in splice.ids if i in controls] == [i for i in frame.ids if i in controls]
    inner = body(protocol, splice.text)
    assert not any(tag in inner for tag in protocol.tags)


@given(result=printed)
def test_what_is_printed_reads_the_same_but_for_the_protocols_tags(protocol, result):
    splice = protocol.splice([result])
    assert protocol.decode(splice.ids) == splice.text
    assert body(protocol, splice.text) == protocol.neutralize(result.rstrip("\r\n") or EMPTY_RESULT)


@given(result=printed)
def test_text_without_the_protocols_tags_is_never_changed(protocol, result):
    if not any(tag in result for tag in protocol.tags):
        assert protocol.neutralize(result) == result


@given(result=printed)
def test_a_neutralized_tag_can_be_told_from_the_original(protocol, result):
    back = protocol.neutralize(result)
    if protocol.name == "fenced":
        assert back.replace(" ", "") == result.replace(" ", "")
    else:
        assert back.replace("&lt;", "<") == result.replace("&lt;", "<")


def test_no_output_is_said(protocol):
    assert body(protocol, protocol.splice([""]).text) == "[no output]"
    assert body(protocol, protocol.splice(["\n\n"]).text) == "[no output]"


def test_half_a_surrogate_pair_is_written_as_its_escape(protocol):
    assert body(protocol, protocol.splice(["a\ud800b"]).text) == "a\\ud800b"


def test_several_results_come_in_order(protocol):
    text = protocol.splice(["first", "second"]).text
    assert body(protocol, text).startswith("first\n") and body(protocol, text).endswith("\nsecond")


@given(result=st.text(min_size=200, max_size=400), budget=st.integers(17, 60))
def test_of_a_long_result_head_and_tail_are_kept(tokenizer, result, budget):
    protocol = make_protocol(ProtocolConfig(result_tokens=budget), tokenizer)
    whole = protocol.codec.encode(protocol.neutralize(result.rstrip("\r\n") or EMPTY_RESULT))
    inner = body(protocol, protocol.splice([result]).text)
    marker = re.search(r"\n… (\d+) tokens omitted …\n", inner)
    if len(whole) <= budget:
        assert marker is None
        return
    head, tail = inner[: marker.start()], inner[marker.end() :]
    text = protocol.decode(whole)
    assert text.startswith(head) and text.endswith(tail)
    kept = len(whole) - int(marker[1])
    assert budget - 6 <= kept <= budget


def test_a_cut_never_goes_through_a_character():
    protocol = make_protocol(ProtocolConfig(result_tokens=17), TOKENIZERS["bytes"])
    inner = body(protocol, protocol.splice(["🤣" * 20]).text)
    assert inner == "🤣🤣\n… 64 tokens omitted …\n🤣🤣"


def test_the_text_protocol_has_nobody_to_answer(tokenizer):
    with pytest.raises(UsageError, match="no interpreter"):
        make_protocol(ProtocolConfig(name="text"), tokenizer).splice(["4"])
