"""A call is found in the ids, however its text is split into tokens."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from retool.config.schema import ProtocolConfig
from retool.protocol import Call, make_protocol
from small_tokenizers import TOKENIZERS

PIECES = [
    *(
        "<code>",
        "</code>",
        "<code",
        "code>",
        "</",
        "<",
        ">",
        "/",
        "<interpreter>",
        "```",
        "```python",
        "```py",
        "`",
        "\n",
    ),
    *("```python\nx\n```", "print(1)", " ", "é", "🤣", "<tool_call>", "python", "</co", "de>\n"),
]
written = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


@st.composite
def tokenizations(draw, texts=written):
    """Ids of a text as no merge rule would split it: cut anywhere, each piece encoded by itself."""
    tokenizer = TOKENIZERS[draw(st.sampled_from(sorted(TOKENIZERS)))]
    text = draw(texts)
    cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=len(text))))
    ends = zip([0, *cuts], [*cuts, len(text)], strict=True)
    return tokenizer, [i for a, b in ends for i in tokenizer.encode(text[a:b], add_special_tokens=False)]


def ids_of(protocol, text):
    return protocol.codec.encode(text, allow=protocol.tags)


def first_stop(protocol, ids):
    return next((n for n in range(len(ids) + 1) if protocol.stop(ids[:n])), None)


def first_text(protocol, ids, complete):
    return next((n for n in range(len(ids) + 1) if complete(protocol.decode(ids[:n]))), None)


@given(tokenizations())
def test_tags_stop_at_the_first_token_that_completes_the_closing_tag(case):
    tokenizer, ids = case
    protocol = make_protocol(ProtocolConfig(), tokenizer)
    assert first_stop(protocol, ids) == first_text(protocol, ids, lambda text: "</code>" in text)


@given(tokenizations())
def test_fences_stop_at_the_first_token_that_completes_a_block(case):
    tokenizer, ids = case
    protocol = make_protocol(ProtocolConfig(name="fenced"), tokenizer)

    def complete(text):
        lines = text.split("\n")
        opening = next((n for n, line in enumerate(lines[:-1]) if line.rstrip(" \t") in ("```python", "```py")), None)
        return opening is not None and any(line.startswith("```") for line in lines[opening + 1 :])

    assert first_stop(protocol, ids) == first_text(protocol, ids, complete)


@given(tokenizations())
def test_where_decoding_stopped_there_is_exactly_one_call(case):
    tokenizer, ids = case
    for name in ("tags", "fenced"):
        protocol = make_protocol(ProtocolConfig(name=name), tokenizer)
        stop = first_stop(protocol, ids)
        assert len(protocol.calls(ids if stop is None else ids[:stop])) == (stop is not None)


@given(tokenizations())
def test_a_call_starts_at_the_token_in_which_its_first_character_is(case):
    tokenizer, ids = case
    for name, opening in (("tags", "<"), ("fenced", "`"), ("native", "<")):
        protocol = make_protocol(ProtocolConfig(name=name), tokenizer)
        for call in protocol.calls(ids):
            assert opening in protocol.decode(ids[: call.start + 1])[len(protocol.decode(ids[: call.start])) :]


@given(tokenizations())
def test_native_calls_and_text_never_stop_before_the_turn_ends(case):
    tokenizer, ids = case
    for name in ("native", "text"):
        assert first_stop(make_protocol(ProtocolConfig(name=name), tokenizer), ids) is None


@example(code="0\n\x85", fence=False)  # a line of white space that is neither spaces nor tabs
@given(code=st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip), fence=st.booleans())
def test_code_comes_back_as_it_was_written(protocol, code, fence):
    text = "So:\n" + protocol.write_call(code)
    ids = ids_of(protocol, text)
    if protocol.name != "native" and ("```" in code or "</code>" in code or "<code>" in code):
        return
    [call] = protocol.calls(ids)
    lines = code.split("\n")
    while not lines[0].strip():
        lines.pop(0)
    while not lines[-1].strip():
        lines.pop()
    assert call.error is None
    assert call.code.strip() == code.strip()
    assert "\n".join(lines).rstrip("\r") == call.code.rstrip("\r")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("<code>print(1)</code>", "print(1)"),
        ("<code>\n\n  \n  x = 1\n\n</code>", "  x = 1"),
        ("<code>\n```python\nx\n```\n</code>", "x"),
        ("<code>\n```py\nx\n```</code>", "x"),
        ("<code>```\nx\n\n```\n</code>", "x"),
        ("<code>\n```python\nx\n</code>", "x"),
        ("<code>\ns = '''\n```\n'''\n</code>", "s = '''\n```\n'''"),
        ("<code>first <code>second</code>", "second"),
        ("The tag <code> opens.\n<code>\n# <interpreter>\n</code>\n\n", "# <interpreter>"),
        ("<code>print('</code>')", "print('"),  # the first closing tag ends a call, be it in a string
    ],
)
def test_tags_take_what_stands_between(tokenizer, text, code):
    protocol = make_protocol(ProtocolConfig(), tokenizer)
    [call] = protocol.calls(ids_of(protocol, text))
    assert (call.code, call.error) == (code, None)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("so </code>", "Nothing was executed: </code> has no <code> before it."),
        ("<code></code>", "Nothing was executed: there is no code between <code> and </code>."),
        ("<code>\n```python\n```\n</code>", "Nothing was executed: there is no code between <code> and </code>."),
        ("<code> \n\t\n</code>", "Nothing was executed: there is no code between <code> and </code>."),
    ],
)
def test_tags_without_code_are_answered(tokenizer, text, error):
    protocol = make_protocol(ProtocolConfig(), tokenizer)
    [call] = protocol.calls(ids_of(protocol, text))
    assert (call.code, call.error) == (None, error)


@pytest.mark.parametrize(
    "text", ["", "<code>\nx", "<interpreter>\n42\n</interpreter>", "< code>x</ code>", "\\boxed{4}"]
)
def test_what_is_no_call_of_the_tags(tokenizer, text):
    protocol = make_protocol(ProtocolConfig(), tokenizer)
    assert protocol.calls(ids_of(protocol, text)) == []


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```python\nx\n```", "x"),
        ("First:\n```py \n\nx\n  y\n\n```\n", "x\n  y"),
        ("```json\n{}\n```\n```python\nx\n```", "x"),
        ("```python\nx\n```python\ny\n```", "x"),
        ('```python\ns = """\n```', 's = """'),
    ],
)
def test_fences_take_what_stands_between(tokenizer, text, code):
    protocol = make_protocol(ProtocolConfig(name="fenced"), tokenizer)
    [call] = protocol.calls(ids_of(protocol, text))
    assert (call.code, call.error) == (code, None)


@pytest.mark.parametrize("text", ["```python\n```", "```python\n\n  \n```"])
def test_an_empty_block_is_answered(tokenizer, text):
    protocol = make_protocol(ProtocolConfig(name="fenced"), tokenizer)
    [call] = protocol.calls(ids_of(protocol, text))
    assert call == Call(None, "Nothing was executed: there is no code in the ```python block.", 0)


@pytest.mark.parametrize(
    "text",
    [
        "```\nx\n```",
        "```json\nx\n```",
        "```python x\n```",
        "use ```python\nx\n```",
        "```python\nx",
        "  ```python\nx\n```",
    ],
)
def test_what_is_no_call_of_the_fences(tokenizer, text):
    protocol = make_protocol(ProtocolConfig(name="fenced"), tokenizer)
    assert protocol.calls(ids_of(protocol, text)) == []


def hermes(code, name="python"):
    return "<tool_call>\n" + json.dumps({"name": name, "arguments": {"code": code}}) + "\n</tool_call>"


def native_calls(tokenizer, text):
    protocol = make_protocol(ProtocolConfig(name="native"), tokenizer)
    return protocol.calls([*ids_of(protocol, text), protocol.end_id])


def test_several_calls_of_one_turn_are_all_found_in_order(tokenizer):
    calls = native_calls(tokenizer, f"Two.\n{hermes('a')}\n{hermes('b')} done")
    assert [call.code for call in calls] == ["a", "b"]
    assert calls[0].start < calls[1].start


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        (hermes("print('</tool_call><tool_call>')"), ["print('</tool_call><tool_call>')"]),
        ('<tool_call>{"name":"python","arguments":{"code":"a\nb"}}</tool_call>', ["a\nb"]),
        ('<tool_call>{"name":"python","arguments":{"code":"a"}}', ["a"]),
        ('<tool_call>{"name":"python","arguments":{"code":"a"}}\n' + hermes("b"), ["a", "b"]),
        ("no call", []),
    ],
)
def test_native_calls_that_can_be_read(tokenizer, text, codes):
    assert [(call.code, call.error) for call in native_calls(tokenizer, text)] == [(code, None) for code in codes]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("<tool_call>\nprint(1)\n</tool_call>", "not valid JSON"),
        ("<tool_call></tool_call>", "not valid JSON"),
        ("<tool_call>", "not valid JSON"),
        ("<tool_call>" + "[" * 100_000, "not valid JSON"),
        ("<tool_call>" + "9" * 5000 + "</tool_call>", "not valid JSON"),
        (hermes("a").replace("\n</tool_call>", "}\n</tool_call>"), "</tool_call> was expected"),
        ("so </tool_call>", "</tool_call> has no <tool_call> before it"),
        (hermes("a", name="search"), "there is no tool 'search', only 'python'"),
        (hermes(""), "the argument 'code' is empty"),
        (hermes(7), "the argument 'code' must be a string"),
        (hermes("\ud800"), "half a surrogate pair"),
        ('<tool_call>{"name": "python", "arguments": "a"}</tool_call>', "a call must look like"),
        ("<tool_call>[]</tool_call>", "a call must look like"),
    ],
)
def test_native_calls_that_cannot_be_read_are_answered(tokenizer, text, error):
    [call] = native_calls(tokenizer, text)
    assert call.code is None
    assert call.error.startswith("Nothing was executed: ") and error in call.error


def test_a_call_after_a_malformed_one_is_still_found(tokenizer):
    calls = native_calls(tokenizer, "<tool_call>oops</tool_call>\n" + hermes("a"))
    assert [call.code for call in calls] == [None, "a"]
