"""Is a response right? Read from the model's own reasoning: neither its code nor what the code printed counts."""

from __future__ import annotations

from retool.grading import Grader, extract_answer
from retool.protocol import Protocol
from retool.types import Author, StopReason, Trajectory


def grade(trajectory: Trajectory, grader: Grader, protocol: Protocol | None = None) -> None:
    """Fill in answer and correct. `protocol` reads the trajectory's ids; one without ids needs none."""
    trajectory.answer = extract_answer(reasoning(trajectory, protocol))
    finished = trajectory.stop is StopReason.EOS
    trajectory.correct = finished and grader.grade(trajectory.answer, trajectory.problem.answer)


def reasoning(trajectory: Trajectory, protocol: Protocol | None = None) -> list[str]:
    """The texts of the model's spans without their calls: `print("\\boxed{42}")` is code and no answer."""
    texts, position = [], 0
    first_call = {call.span: call.start for call in reversed(trajectory.calls)}
    for index, span in enumerate(trajectory.spans):
        length = len(span.text if span.ids is None else span.ids)
        if span.author is Author.MODEL:
            end = first_call.get(index, position + length) - position
            texts.append(span.text[:end] if span.ids is None else protocol.decode(span.ids[:end]))
        position += length
    return texts
