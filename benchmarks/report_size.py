"""How large a report of 10,000 trajectories is, and how long it takes to open: python benchmarks/report_size.py

The trajectories are invented: 500 problems, answered at ten steps of two runs, about 400 tokens each with two calls,
half of them learned from. Opening is measured in headless Chromium, from navigation to a list that answers and a
trajectory that can be read; it needs the playwright package (`make test-browser` installs it). The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

from retool.reporting import Archive, CurveRow, Entry, LearnerTokens, Origin, Report, write_report
from retool.types import Author, CallStatus, Problem, Span, StopReason, ToolCall, Trajectory

PROBLEMS, STEPS, RUNS = 500, 10, ("ReTool", "text-only")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trajectories", type=int, default=10_000)
    parser.add_argument("--words", type=int, default=220, help="of reasoning in a trajectory")
    parser.add_argument("--out", type=Path, help="keep the page here")
    parser.add_argument("--chromium", default=os.environ.get("RETOOL_CHROMIUM") or shutil.which("chromium"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.out or Path(folder) / "report.html"
        began = time.perf_counter()
        tokens, notes = write(path, args.trajectories, args.words)
        row = {
            "trajectories": args.trajectories,
            "tokens": tokens,
            "write_seconds": round(time.perf_counter() - began, 1),
            "megabytes": round(path.stat().st_size / 1e6, 1),
            "left_out": notes,
        }
        print(f"{row['trajectories']:,} trajectories of {tokens / args.trajectories:.0f} tokens: {row['megabytes']} MB")
        row |= opening(path, args.chromium)
    print(json.dumps(row))


def write(path: Path, count: int, words: int) -> tuple[int, list[str]]:
    """Write a report of `count` trajectories; returns the number of their tokens, and what the page left out."""
    archive, tokens = Archive(), 0
    for entry in entries(count, words):
        archive.add(entry)
        tokens += entry.trajectory.tokens()
    curves = [
        CurveRow(arm=run, step=step, metric=metric, value=step / STEPS / 2 + i / 4, low=step / STEPS / 2, high=1.0)
        for run in RUNS
        for step in range(STEPS)
        for i, metric in enumerate(("accuracy", "code_ratio", "code_lines", "entropy"))
    ]
    write_report(path, Report(title=f"{count:,} trajectories", curves=curves, archive=archive))
    return tokens, archive.notes()


def entries(count: int, words: int) -> Iterator[Entry]:
    rng = Random(0)
    vocabulary = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(4000)]
    problems = [
        Problem(f"p{i}", " ".join(rng.choices(vocabulary, k=40)) + "?", str(rng.randrange(1000)), f"family {i % 8}")
        for i in range(PROBLEMS)
    ]
    for i in range(count):
        problem, run = problems[i % PROBLEMS], RUNS[i // PROBLEMS % 2]
        step = i // PROBLEMS // 2 % STEPS
        trajectory = answer(rng, vocabulary, problem, run, step, i, words)
        written = trajectory.tokens(Author.MODEL)
        learned = LearnerTokens(
            [logprob + rng.gauss(0, 0.002) for span in trajectory.spans for logprob in span.logprobs or ()],
            [rng.gauss(0, 0.5) for _ in range(written)],
        )
        yield Entry(
            run=run,
            origin=Origin.ROLLOUT if i % 2 else Origin.HELD_OUT,
            step=step,
            trajectory=trajectory,
            prompt=f"Solve the problem step by step. {problem.text}",
            pieces={token: f" {vocabulary[token]}" for span in trajectory.spans for token in span.ids or ()},
            purposes=["calculation"] * len(trajectory.calls),
            in_loss=bool(i % 2),
            learner=learned if i % 2 else None,
        )


def answer(
    rng: Random, vocabulary: list[str], problem: Problem, run: str, step: int, number: int, words: int
) -> Trajectory:
    """Reasoning, a call that fails every third time, more reasoning, a call that runs, an answer."""
    spans: list[Span] = []
    calls: list[ToolCall] = []

    def say(author: Author, text: str) -> None:
        ids = [rng.randrange(4000) for _ in range(max(1, len(text) // 5))]
        logprobs = [-rng.expovariate(3) for _ in ids] if author is Author.MODEL else None
        spans.append(Span(author, ids, text, logprobs, step))

    for status in (CallStatus.ERROR if number % 3 == 0 else CallStatus.OK, CallStatus.OK):
        names = rng.choices(vocabulary, k=4)
        code = "\n".join(
            [
                "from math import comb",
                f"{names[0]} = {rng.randrange(10**6)}",
                f"for {names[1]} in range({rng.randrange(99)}):",
                f"    {names[0]} += comb({names[1]}, 2)  # {names[2]} {names[3]}",
                f"print({names[0]} % {rng.randrange(2, 999)})",
            ]
        )
        output = f"NameError: name '{names[1]}' is not defined" if status is CallStatus.ERROR else str(rng.random())
        calls.append(ToolCall(len(spans), sum(len(s.ids or ()) for s in spans), code, output, status))
        say(Author.MODEL, " ".join(rng.choices(vocabulary, k=words // 2)) + f"\n<code>\n{code}\n</code>")
        say(Author.INTERPRETER, f"\n<interpreter>\n{output}\n</interpreter>\n")
    correct = rng.random() < 0.4 + step / 20
    given = problem.answer if correct else "0"
    say(Author.MODEL, f"So the answer is \\boxed{{{given}}}.")
    return Trajectory(
        id=f"{run}/{step}/{problem.id}/{number}",
        step=step,
        arm=run,
        seed=0,
        sample=number // (PROBLEMS * 2 * STEPS),
        group=f"{run}/{step}/{problem.id}",
        model="invented",
        protocol="tags",
        problem=problem,
        prompt_ids=[1],
        spans=spans,
        calls=calls,
        stop=StopReason.EOS,
        answer=given,
        correct=correct,
        reward={"total": 1.0 if correct else -1.0},
        timing={"seconds": rng.random() * 30, "tool_seconds": rng.random()},
    )


def opening(path: Path, chromium: str | None) -> dict[str, float]:
    """Medians of three fresh starts, in seconds; nothing without a browser."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        print("playwright is not installed: the page is not opened")
        return {}
    if not chromium:
        print("there is no Chromium: the page is not opened; name one with --chromium")
        return {}
    rows = []
    with sync_playwright() as engine:
        for _ in range(3):
            browser = engine.chromium.launch(executable_path=chromium, args=FLAGS)
            page = browser.new_page()
            began = time.perf_counter()
            page.goto(path.as_uri(), wait_until="commit")
            page.wait_for_selector("html[data-ready]")
            page.locator(".item").nth(2).click()
            page.wait_for_selector(".item.picked[aria-posinset='3']")
            opened = time.perf_counter() - began
            page.wait_for_selector("html[data-charts=drawn]")
            drawn = time.perf_counter() - began
            page.fill("#query", "nowhere to be found")
            searched = time.perf_counter()
            page.locator("#count", has_text=re.compile(r"^0 of [\d,]+$")).wait_for()  # to its end
            searched = time.perf_counter() - searched
            rows.append({"open_seconds": opened, "charts_seconds": drawn, "search_seconds": searched})
            browser.close()
    found = {name: round(statistics.median(row[name] for row in rows), 2) for name in rows[0]}
    print(", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in found.items()))
    return found


if __name__ == "__main__":
    main()
