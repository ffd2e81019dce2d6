"""A teacher behind an endpoint rewrites, a judge and people filter: asked, run, asked again, and never paid twice."""

import asyncio
import json
import re

import pytest

from chat_server import ChatServer, chat_server, completion, failure
from retool.config.endpoint import EndpointConfig
from retool.config.schema import Config
from retool.config.synth import SynthConfig
from retool.errors import RetoolError, UsageError
from retool.stages.synth import synthesize
from retool.types import CallStatus, Kind, Problem, Trace

ROWS = [
    (Problem(f"p{n}", f"What is {n} times 7?", str(7 * n), "hand"), f"{n} times 7, that is \\boxed{{{7 * n}}}.")
    for n in range(2, 8)
]


def rewritten(code: str, output: object, end: str) -> str:
    call = f"<code>\n{code}\n</code>\n<interpreter>\n{output}\n</interpreter>"
    return f"<rewritten>\nI had better compute it.\n{call}\n{end}\n</rewritten>"


def good(n: int) -> str:
    return rewritten(f"print({n} * 7)", 7 * n, f"So \\boxed{{{7 * n}}}.")


def asked(body: dict) -> int:
    """The number that a request is about."""
    return int(re.search(r"What is (\d+) times", body["messages"][1]["content"])[1])


def is_repair(body: dict) -> bool:
    return len(body["messages"]) > 2


def run(out, answer, rows=ROWS, judge=None, teacher=None, **settings) -> tuple[dict, list[Trace], ChatServer]:
    """A synthesis with a teacher that answers so."""

    async def main() -> ChatServer:
        async with chat_server(answer) as server:
            endpoint = EndpointConfig(url="http://placeholder", model="t", **(teacher or {}))
            at_server = {"url": server.url}
            synth = SynthConfig(
                rewrite="teacher",
                teacher=endpoint.model_copy(update=at_server),
                judge=EndpointConfig(url=server.url, model="j") if judge else None,
                **settings,
            )
            try:
                await synthesize(Config(synth=synth), rows, out)
            finally:
                run.requests = server.requests
            return server

    server = asyncio.run(main())
    report = json.loads((out / "report.json").read_text("utf-8"))
    lines = (out / "traces.jsonl").read_text("utf-8").splitlines()
    return report, [Trace.from_json(json.loads(line)) for line in lines], server


@pytest.fixture(autouse=True)
def one_address(monkeypatch):
    """The address is part of what a folder belongs to; here it changes with each server."""
    monkeypatch.setattr("retool.stages.synth.folder._ENDPOINT", ("model",))


def test_the_teachers_traces_have_the_interpreters_outputs_and_text_twins(tmp_path):
    report, traces, server = run(tmp_path, lambda body: completion(good(asked(body))))
    assert report["accepted"] == report["text_traces"] == len(ROWS) == len(server.requests)
    first = traces[0]
    assert [(s.kind, s.text) for s in first.segments] == [
        (Kind.TEXT, "I had better compute it."),
        (Kind.CODE, "print(2 * 7)"),
        (Kind.RESULT, "14"),
        (Kind.TEXT, "So \\boxed{14}."),
    ]
    assert "14" not in server.requests[0]["messages"][0]["content"]


def test_a_wrong_expectation_is_repaired_once_with_the_real_output(tmp_path):
    def answer(body):
        n = asked(body)
        if n == 3 and not is_repair(body):
            return completion(rewritten("print(3 * 7)", 20, "That is 20, so \\boxed{21}."))
        if n == 4:
            return completion(rewritten("print(4 * 7)", 20, "That is 20, so \\boxed{28}."))
        return completion(good(n))

    report, traces, server = run(tmp_path, answer)
    assert report["rejected"] == {"output_differs": 1}
    assert len(server.requests) == len(ROWS) + 2
    repair = next(body for body in server.requests if asked(body) == 3 and is_repair(body))
    assert "program 1 (ok):\n21" in repair["messages"][3]["content"]
    assert "goes on with 20" in repair["messages"][3]["content"]
    assert [trace.problem.id for trace in traces] == ["p2", "p3", "p5", "p6", "p7"]


def test_a_reply_that_breaks_the_contract_is_asked_for_once_more(tmp_path):
    def answer(body):
        n = asked(body)
        return completion(good(n) if n > 3 or (n == 3 and is_repair(body)) else "Here you are: 42.")

    report, _, _ = run(tmp_path, answer)
    assert report["rejected"] == {"format": 1} and report["accepted"] == len(ROWS) - 1


def test_corrections_of_a_failing_program_are_kept_whatever_the_quota(tmp_path):
    def answer(body):
        n = asked(body)
        error = "NameError: name 'seven' is not defined"
        first = f"<code>\nprint({n} * seven)\n</code>\n<interpreter>\n{error}\n</interpreter>"
        return completion(good(n).replace("I had", f"{first}\nI forgot to say what seven is. I had"))

    report, traces, _ = run(tmp_path, answer, per_calls=1)
    statuses = [segment.status for segment in traces[0].segments if segment.kind is Kind.RESULT]
    assert statuses == [CallStatus.ERROR, CallStatus.OK]
    assert report["self_corrections"] == report["failed_calls"] == len(ROWS)


def test_a_refused_or_cut_request_costs_one_row_and_a_wrong_key_everything(tmp_path):
    def answer(body):
        if "ready" in body["messages"][0]["content"]:
            return completion("ready")
        if asked(body) == 2:
            return failure(400, "the content filter has struck")
        return completion(good(asked(body)), finish="length" if asked(body) == 3 else "stop")

    report, _, _ = run(tmp_path / "some", answer)
    assert report["rejected"] == {"refused": 1, "reply_cut_short": 1}
    assert "content filter" in report["examples"]["refused"][0]["detail"]
    with pytest.raises(UsageError, match=r"answered 401 .* no such key"):
        run(tmp_path / "none", lambda body: failure(401, "no such key"))


def test_what_was_answered_before_the_money_ran_out_is_not_asked_again(tmp_path):
    prices = {"price_in": 1.0, "price_out": 1.0, "concurrency": 1}

    def answer(body):
        return completion(good(asked(body)))

    with pytest.raises(RetoolError, match=r"max_cost=4e-05; what it has answered is kept in .*replies"):
        run(tmp_path, answer, teacher=prices | {"max_cost": 4e-5})
    assert len(run.requests) == 3
    report, _, server = run(tmp_path, answer, teacher=prices)
    assert report["accepted"] == len(ROWS) and len(server.requests) == len(ROWS) - 3
    whole, _, _ = run(tmp_path / "whole", answer)
    assert whole == report


def test_the_judge_rejects_what_is_unsound_and_is_asked_twice_for_a_verdict(tmp_path):
    def answer(body):
        if body["model"] == "t":
            return completion(good(asked(body)))
        verdict = {2: "VERDICT: unsound, it is too easy", 3: "Hm.", 4: f"VERDICT: {'sound' if body['seed'] else '?'}"}
        return completion(verdict.get(asked(body), "VERDICT: sound"))

    report, traces, _ = run(tmp_path, answer, judge=True)
    assert report["rejected"] == {"judged_unsound": 1, "unreadable_verdict": 1}
    assert report["examples"]["judged_unsound"][0]["detail"] == "it is too easy"
    assert [trace.problem.id for trace in traces] == ["p4", "p5", "p6", "p7"]


def test_people_review_a_share_before_anything_is_rewritten(tmp_path):
    def answer(body):
        return completion(good(asked(body)))

    with pytest.raises(RetoolError, match=r"6 of 6 solutions in .*review.md wait to be accepted or rejected"):
        run(tmp_path, answer, review=1.0)
    assert run.requests == []
    file = tmp_path / "review.md"
    text = file.read_text("utf-8").replace("- [ ] accept", "- [x] accept", 5)
    file.write_text(text, "utf-8")
    with pytest.raises(RetoolError, match="1 of 6 solutions"):
        run(tmp_path, answer, review=1.0)
    last = text.rindex("- [ ] reject")
    file.write_text(text[:last] + "- [x] reject: dull" + text[last + len("- [ ] reject") :], "utf-8")
    report, traces, _ = run(tmp_path, answer, review=1.0)
    assert report["rejected"] == {"rejected_in_review": 1} and len(traces) == 5
    assert report["examples"]["rejected_in_review"][0] == {
        "id": "p7",
        "problem": "What is 7 times 7?",
        "detail": "dull",
    }
