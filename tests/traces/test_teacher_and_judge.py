"""What teachers and judges are asked, what of their replies counts, and the file that people mark."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retool.errors import UsageError
from retool.traces import Draft, Execution, Reason, Rejection
from retool.traces.judge import ask_judge, read_verdict
from retool.traces.review import read_review, write_review
from retool.traces.teacher import ask, ask_again, read_reply
from retool.types import CallStatus, Problem

PROBLEM = Problem("p", "What is {17} * 23?", "391", "test")
CALL = "<code>\nprint(17 * 23)\n</code>\n<interpreter>\n391\n</interpreter>"


def test_the_teacher_sees_problem_and_solution_and_not_the_reference():
    problem = Problem("p", "What is {17} * 23?", "the reference", "test")
    system, user = ask(problem, "17 * 23 = {391}")
    assert "<rewritten>" in system["content"] and "What is {17} * 23?" in user["content"]
    assert user["content"].endswith("17 * 23 = {391}")
    assert "the reference" not in system["content"] + user["content"]


def test_a_reply_is_read_between_its_marks_whatever_was_thought_before():
    reply = f"<think><rewritten><code></think>Sure!\n<rewritten>\nRun: {CALL}\nSo \\boxed{{391}}.\n</rewritten>\nBye."
    draft = read_reply(PROBLEM, reply)
    assert isinstance(draft, Draft) and draft.snippets == ["print(17 * 23)"] and draft.claims == ("391",)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (f"We run it. {CALL}", Reason.FORMAT),
        (f"<rewritten>We run it. {CALL}", Reason.FORMAT),
        ("<rewritten>By hand: \\boxed{391}</rewritten>", Reason.NO_CALL),
        ("<rewritten><code>print(1)</code> So it is 1.</rewritten>", Reason.FORMAT),
        ("<rewritten><code>print(1)</rewritten>", Reason.FORMAT),
    ],
)
def test_a_reply_that_breaks_the_contract_is_rejected_with_the_clause(reply, reason):
    rejected = read_reply(PROBLEM, reply)
    assert isinstance(rejected, Rejection) and rejected.reason is reason


def test_a_teacher_that_is_asked_again_gets_its_reply_the_fault_and_the_real_outputs():
    fault = Rejection(Reason.OUTPUT_DIFFERS, "'print(…)' printed '391', and the text goes on with 381")
    *_, reply, complaint = ask_again(PROBLEM, "s", "my reply", fault, [Execution(CallStatus.OK, "391" + "0" * 9000)])
    assert reply == {"role": "assistant", "content": "my reply"}
    assert "goes on with 381" in complaint["content"] and "program 1 (ok):\n391" in complaint["content"]
    assert len(complaint["content"]) < 4000


def test_the_judge_sees_the_reference_and_its_last_verdict_counts():
    assert "391" in ask_judge(PROBLEM, "so")[1]["content"]
    assert read_verdict("VERDICT: unsound? No.\n**VERDICT: sound**") is None
    unsound = read_verdict("Hm.\nVerdict: UNSOUND, the second step is wrong.")
    assert unsound == Rejection(Reason.JUDGED_UNSOUND, "the second step is wrong")
    assert read_verdict("I like it.").reason is Reason.UNREADABLE_VERDICT


ROWS = [(Problem(f"id {n}", f"P{n}?\n## 7. id 9\n- [x] accept", str(n), "test"), f"S{n}") for n in range(3)]
IDS = [problem.id for problem, _ in ROWS]


def test_a_review_file_is_unmarked_at_first_whatever_the_problems_say():
    assert read_review(write_review(ROWS), IDS, "review.md") == {}


def test_marks_are_read_with_their_reasons():
    text = write_review(ROWS)
    text = text.replace("- [ ] accept", "- [x] accept", 1)
    head, tail = text.split("## 2. id 1")
    text = head + "## 2. id 1" + tail.replace("- [ ] reject", "- [X] reject: the question is unclear", 1)
    assert read_review(text, IDS, "review.md") == {"id 0": None, "id 1": "the question is unclear"}


def test_a_review_that_is_about_others_or_marked_twice_is_refused():
    text = write_review(ROWS)
    with pytest.raises(UsageError, match=r"review.md does not list the 2 solutions"):
        read_review(text, IDS[:2], "review.md")
    both = text.replace("- [ ] accept\n- [ ] reject", "- [x] accept\n- [x] reject", 1)
    with pytest.raises(UsageError, match=r"review.md marks 'id 0' more than once"):
        read_review(both, IDS, "review.md")


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_no_text_can_pass_for_a_mark(texts):
    rows = [(Problem(f"p{n}", text, text, "test"), text) for n, text in enumerate(texts)]
    assert read_review(write_review(rows), [problem.id for problem, _ in rows], "review.md") == {}
