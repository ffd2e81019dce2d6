"""`retool solve`: what is written is shown as it comes, in order, and as what it is."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from chat_server import chat_server, completion
from planted import failed, ran, respond
from retool.cli.main import cli
from retool.config.load import load_config
from retool.config.sampling import SamplingConfig
from retool.config.schema import Config, ProtocolConfig, RolloutConfig
from retool.errors import UsageError
from retool.protocol import make_protocol
from retool.rollout.agent import Agent, Task
from retool.sampling.scripted import ScriptedSampler
from retool.sandbox import Result
from retool.stages.solve.pieces import cut
from retool.stages.solve.recipe import Follower, solve
from retool.stages.solve.transcript import markdown, write_transcript
from retool.stages.solve.views import PlainView, TerminalView
from retool.types import Author, CallStatus, Problem, ToolCall, Trajectory
from small_tokenizers import TOKENIZERS

END = "<|im_end|>"
PROBLEM = Problem("p", "What is 12 times 7?", "", "solve")


class Notes:
    """A view that writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def wrote(self, text: str) -> None:
        self.events.append(("wrote", text))

    def turn_ended(self) -> None:
        self.events.append(("turn ended", ""))

    def answered(self, call: ToolCall) -> None:
        self.events.append(("answered", f"{call.status}: {call.output}"))

    def read(self, text: str) -> None:
        self.events.append(("read", text))

    def ended(self, trajectory: Trajectory) -> None:
        self.events.append(("ended", ""))


class Box:
    """A sandbox that prints 84, and notes how much the view had been told by then."""

    def __init__(self, notes: Notes):
        self._notes = notes
        self.told = ""

    async def run(self, code: str, **_: object) -> Result:
        self.told = "".join(text for kind, text in self._notes.events if kind == "wrote")
        return Result(CallStatus.OK, "84")


def roll_out(name: str, words: Sequence[str], tokenizer: str = "special") -> tuple[Trajectory, Notes, Box]:
    """A response of these words, then a call, then the answer."""
    protocol = make_protocol(ProtocolConfig(name=name, instruction=""), TOKENIZERS[tokenizer])
    turns = ["".join(words) + "\n" + protocol.write_call("print(12 * 7)") + END * protocol.ends_turn]
    turns.append("So it is \\boxed{84}." + END)

    def script(ids: list[int]) -> list[int]:
        return protocol.codec.tokenizer.encode(turns["84" in protocol.decode(ids)], add_special_tokens=False)

    notes = Notes()
    box = Box(notes)
    follower = Follower(notes, protocol, protocol.eos_ids)
    agent = Agent(ScriptedSampler(script), protocol, box, RolloutConfig(), SamplingConfig(), watch=follower)
    task = Task(PROBLEM, protocol.prompt_ids(PROBLEM.text), "solve", 0, 0, 0, "scripted")
    return asyncio.run(agent.run(task)), notes, box


@pytest.mark.parametrize("name", ["tags", "native", "fenced"])
def test_a_response_is_told_piece_by_piece_and_in_order(name: str) -> None:
    trajectory, notes, box = roll_out(name, ["Let us ", "see."])
    kinds = [kind for kind, _ in notes.events if kind != "wrote"]
    assert kinds == ["turn ended", "answered", "read", "turn ended"]
    assert ("answered", "ok: 84") in notes.events
    assert len(notes.events) > 15  # token by token
    told = "".join(text for kind, text in notes.events if kind in ("wrote", "read"))
    mine = [span.text.removesuffix(END) if span.author is Author.MODEL else span.text for span in trajectory.spans]
    assert told == "".join(mine)
    assert "print(12 * 7)" in box.told  # before it ran


@pytest.mark.parametrize("tokenizer", sorted(TOKENIZERS))
def test_characters_come_whole(tokenizer: str) -> None:
    words = "π ≈ 3.14 und ∑ 🧮 你好"
    _, notes, _ = roll_out("tags", [words], tokenizer)
    pieces = [text for kind, text in notes.events if kind == "wrote"]
    assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces).startswith(words)


TURNS = {
    "tags": "Hm, `<` is less.\n<code>\n```python\na = 1\n\nprint(a)\n```\n</code>",
    "bare": "Hm.\n<code>\na = 1\n\nprint(a)\n</code>",
    "fenced": "Hm, ``x``.\n```python\na = 1\n\nprint(a)\n```",
    "native": 'Hm.\n<tool_call>\n{"name": "python", "arguments": {"code": "a = 1\\n\\nprint(a)"}}\n</tool_call>',
}


@pytest.mark.parametrize("name", TURNS)
def test_code_is_told_from_words_while_it_is_written(name: str) -> None:
    turn = TURNS[name]
    words, code, *_ = cut(turn, ended=True)
    assert (words.is_code, code.is_code) == (False, True)
    assert code.text.strip("\n") == "a = 1\n\nprint(a)"
    for end in range(len(turn)):
        pieces = cut(turn[:end], ended=False)
        assert turn.startswith(pieces[0].text)
        if len(pieces) > 1:
            lines = pieces[1].text.split("\n")[:-1]
            assert lines == code.text.split("\n")[: len(lines)]


@given(st.text('ab<code>/`python\n\\u"{}:_tl ', max_size=80))
def test_what_was_taken_for_words_stays_words(turn: str) -> None:
    for end in range(len(turn)):
        before, after = cut(turn[:end], ended=False), cut(turn, ended=True)
        for piece, later in zip(before, after, strict=False):
            assert piece.is_code or later.text.startswith(piece.text)


def test_a_call_whose_json_is_broken_is_shown_as_it_is() -> None:
    pieces = cut('<tool_call>\n{"arguments": {"code": "print(\\d)', ended=True)
    assert pieces[1].text == "print(\\d)"


def show(view, trajectory: Trajectory) -> None:
    Follower(view)(trajectory, ())
    view.ended(trajectory)


HOSTILE = "\x1b[2J\x1b]0;owned\x07text"


def test_plain_text_is_the_response_without_control_codes_and_then_the_answer() -> None:
    trajectory = respond("So\x1b[31m:", ran("print(1)", HOSTILE), "Done.", ids=False, answer="5")
    out = io.StringIO()
    show(PlainView(out), trajectory)
    assert out.getvalue() == (
        "So:\n<code>\n```python\nprint(1)\n```\n</code>\n<interpreter>\ntext\n</interpreter>\nDone.\n\nAnswer: 5\n"
    )


def test_a_terminal_shows_code_without_tags_and_results_with_their_verdicts() -> None:
    long = "\n".join(map(str, range(100)))
    trajectory = respond("Now:", failed("x = 1 /\nprint(x)", HOSTILE), "Oops.", ran("print(2)", long), ids=False)
    screen = io.StringIO()
    show(TerminalView(Console(file=screen, width=80, highlight=False)), trajectory)
    lines = screen.getvalue().splitlines()
    assert lines[:5] == ["Now:", "│  x = 1 /", "│  print(x)", "╰─ error", "   text"]
    assert lines[6:9] == ["Oops.", "│  print(2)", "╰─ ok"]
    assert "   … 60 lines …" in lines and lines[-1] == "No answer: nothing stands in a \\boxed{}"
    assert "\x1b" not in screen.getvalue()


def test_code_is_coloured_on_a_terminal() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, color_system="standard", width=80)
    show(TerminalView(console), respond(ran('"""a\nb"""\nprint(1)'), ids=False))
    assert "\x1b[" in screen.getvalue()


def test_the_markdown_of_a_response() -> None:
    trajectory = respond("So:", ran("print('```')", "```\n# no heading"), "Done.", answer="5")
    text = markdown(trajectory)
    assert "So:\n\n```python\nprint('```')\n```\n\n*ok:*\n\n````text\n```\n# no heading\n````\n\nDone." in text
    assert "# Answer\n\n5\n" in text
    assert "; 1 call, " not in text and "tokens, 1 call, 0.0 s" in text


def test_a_transcript_is_what_its_ending_says(tmp_path: Path) -> None:
    trajectory = respond("So:", ran("print(1)"), "Done.")
    for name in ("a.json", "a.jsonl"):
        write_transcript(tmp_path / name, trajectory)
        assert Trajectory.from_json(json.loads((tmp_path / name).read_text())) == trajectory
    write_transcript(tmp_path / "a.md", trajectory)
    assert (tmp_path / "a.md").read_text() == markdown(trajectory)
    with pytest.raises(UsageError, match=r"by the ending of its name; found 'a.txt'"):
        write_transcript(tmp_path / "a.txt", trajectory)


def test_a_question_from_the_command_line_to_the_transcript(model_folder: Path, tmp_path: Path) -> None:
    words = ["solve", "rollout.max_tokens=24", "rollout.deterministic=true", "sandbox.allow_weak=true"]
    flags = ["--model", str(model_folder), "--seed", "3", "--transcript", str(tmp_path / "t.json")]
    result = CliRunner().invoke(cli, [*words, "What is 12 times 7?", *flags], catch_exceptions=False)
    row = json.loads((tmp_path / "t.json").read_text())
    assert (row["problem"]["text"], row["problem"]["answer"], row["seed"]) == ("What is 12 times 7?", "", 3)
    assert result.stdout.splitlines()[-1].startswith(("Answer", "No answer"))
    again = CliRunner().invoke(cli, [*words, "-", *flags], input="What is 12 times 7?\n", catch_exceptions=False)
    assert again.stdout == result.stdout


def test_a_checkpoint_of_a_run_is_prompted_as_in_that_run(model_folder: Path, tmp_path: Path) -> None:
    run, transcript = tmp_path / "lr=1" / "rl", tmp_path / "t.json"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "step-1").symlink_to(model_folder)
    (run / "config.yaml").write_text("protocol: {instruction: Say it.}\nrollout: {max_tokens: 3}\nolder: [settings]\n")

    def ask(model: Path, *words: str) -> dict:
        flags = ["--model", str(model), "--transcript", str(transcript)]
        CliRunner().invoke(cli, ["solve", *words, "sandbox.allow_weak=true", "Why?", *flags], catch_exceptions=False)
        return json.loads(transcript.read_text())

    named = ask(model_folder, "protocol.instruction=Say it.", "rollout.max_tokens=3")
    assert ask(run / "checkpoints" / "step-1")["prompt_ids"] == named["prompt_ids"]
    assert ask(run / "checkpoints" / "step-1", "protocol.instruction=Think.")["prompt_ids"] != named["prompt_ids"]
    assert ask(run / "checkpoints" / "step-1", "nano", "rollout.max_tokens=3")["prompt_ids"] != named["prompt_ids"]
    assert sum(len(span["ids"]) for span in named["spans"]) <= 3


def test_a_question_that_is_not_last_is_told_from_a_config() -> None:
    result = CliRunner().invoke(cli, ["solve", "What is 6 times 7?", "rollout.max_tokens=9"])
    assert isinstance(result.exception, UsageError) and "name it last" in str(result.exception)


@pytest.mark.parametrize(("words", "sentence"), [(["  "], "there is no question"), (["What?"], "there is no model")])
def test_what_is_missing_is_said(words: list[str], sentence: str) -> None:
    result = CliRunner().invoke(cli, ["solve", *words])
    assert isinstance(result.exception, UsageError) and sentence in str(result.exception)


def test_a_model_behind_an_endpoint_is_shown_turn_by_turn() -> None:
    call = {"id": "1", "function": {"name": "python", "arguments": '{"code": "print(12 * 7)"}'}}
    answers = iter([completion("Hm.", "tool_calls", tool_calls=[call]), completion("It is \\boxed{84}.")])
    notes = Notes()

    async def scenario() -> Trajectory:
        async with chat_server(lambda body: next(answers)) as server:
            overrides = [f"eval.endpoint.url={server.url}", "eval.endpoint.model=m", "sandbox.allow_weak=true"]
            return await solve(load_config(Config, None, overrides), "What is 12 times 7?", notes)

    trajectory = asyncio.run(scenario())
    assert trajectory.answer == "84"
    kinds = [kind for kind, _ in notes.events]
    assert kinds == ["wrote", "turn ended", "answered", "read", "wrote", "turn ended", "ended"]
    assert ("answered", "ok: 84") in notes.events
