"""How a response looks while it comes: coloured on a terminal, as plain text anywhere else."""

from __future__ import annotations

from typing import Protocol, TextIO

from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text

from retool.reporting import printable
from retool.stages.solve.pieces import Piece, cut
from retool.types import CallStatus, ToolCall, Trajectory

_LONGEST_RESULT = 40  # lines of a result that are shown on a terminal


class View(Protocol):
    """What is told of a response as it comes. All texts are a model's, or of code that it wrote."""

    def wrote(self, text: str) -> None:
        """The model wrote this after what it wrote before."""

    def turn_ended(self) -> None:
        """It wrote no more in this turn."""

    def answered(self, call: ToolCall) -> None:
        """A call of the last turn has its result."""

    def read(self, text: str) -> None:
        """What the model is told by the interpreter: results with what surrounds them."""

    def ended(self, trajectory: Trajectory) -> None:
        """The response is there, ungraded, with its answer if it has one."""


class PlainView:
    """Every text as it is, flushed as it comes; the answer in a last line of its own."""

    def __init__(self, out: TextIO):
        self._out = out

    def wrote(self, text: str) -> None:
        self._out.write(printable(text))
        self._out.flush()

    def turn_ended(self) -> None:
        pass

    def answered(self, call: ToolCall) -> None:
        pass

    def read(self, text: str) -> None:
        self.wrote(text)

    def ended(self, trajectory: Trajectory) -> None:
        self.wrote(f"\n\n{closing(trajectory)}\n")


class TerminalView:
    """Reasoning as it comes, code line by line and highlighted, results set apart with their verdicts."""

    def __init__(self, console: Console):
        self._console = console
        self._begin()

    def wrote(self, text: str) -> None:
        self._turn += text
        self._show(ended=False)

    def turn_ended(self) -> None:
        self._show(ended=True)
        if not self._at_margin:
            self._console.print()
        self._begin()

    def answered(self, call: ToolCall) -> None:
        well = call.status is CallStatus.OK
        colour = "green" if well else "red"
        self._console.print(Text(f"╰─ {call.status.value.replace('_', ' ')}", style=f"bold {colour}"))
        for line in _shortened(printable(call.output).split("\n")):
            self._console.print(Text("   " + line, style="" if well else "red"), soft_wrap=True)
        self._console.print()

    def read(self, text: str) -> None:
        pass

    def ended(self, trajectory: Trajectory) -> None:
        self._console.print()
        self._console.print(Text(closing(trajectory), style="bold"), soft_wrap=True)

    def _begin(self) -> None:
        self._turn = ""
        self._piece = 0  # the piece of the turn that is being shown
        self._shown = 0  # characters (of reasoning) or lines (of code) of it that are on the screen
        self._at_margin = True

    def _show(self, ended: bool) -> None:
        """Bring the screen up to what is known of the turn."""
        for piece in cut(self._turn, ended)[self._piece :]:
            (self._show_code if piece.is_code else self._show_words)(piece)
            if piece.whole:
                self._piece += 1
                self._shown = 0

    def _show_words(self, piece: Piece) -> None:
        words = printable(piece.text[self._shown :])
        self._shown = max(self._shown, len(piece.text))
        if words:
            self._console.print(Text(words), end="", soft_wrap=True)
            self._at_margin = words.endswith("\n")

    def _show_code(self, piece: Piece) -> None:
        """The lines that are complete. All of the code is highlighted anew, as a string may reach over lines."""
        if not piece.text.strip():
            return
        lines = printable(piece.text).rstrip("\n" if piece.whole else "").split("\n")
        lines = lines if piece.whole else lines[:-1]
        if len(lines) <= self._shown:
            return
        if not self._at_margin:
            self._console.print()
        coloured = Syntax("", "python", theme="ansi_dark").highlight("\n".join(lines)).split("\n", allow_blank=True)
        for line in list(coloured)[self._shown : len(lines)]:
            self._console.print(Text("│  ", style="dim") + line, soft_wrap=True)
        self._shown, self._at_margin = len(lines), True


def closing(trajectory: Trajectory) -> str:
    """The last line: the answer, and why there may be none."""
    if trajectory.answer is not None:
        return printable(f"Answer: {trajectory.answer}")
    why = f"the response was cut off ({trajectory.stop})" if trajectory.truncated else "nothing stands in a \\boxed{}"
    return f"No answer: {why}"


def _shortened(lines: list[str]) -> list[str]:
    """Head and tail of the lines of a long result."""
    if len(lines) <= _LONGEST_RESULT:
        return lines
    half = _LONGEST_RESULT // 2
    return [*lines[:half], f"… {len(lines) - 2 * half} lines …", *lines[-half:]]
