"""An invented run of four systems, as large as a real one, for tests of the report and for looking at it.

`PYTHONPATH=tests python tests/reporting/demo_run.py FOLDER` writes the page and the picture. The numbers are made up.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from math import exp
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from invented_cluster import write_times
from retool.reporting import (
    Alarm,
    Archive,
    CallSeconds,
    Comparison,
    Correction,
    CurveRow,
    Entry,
    LearnerTokens,
    Origin,
    Purposes,
    Report,
    StepTimes,
    System,
    save_chart_png,
    write_report,
)
from retool.runs import RunFolder
from retool.stages.report.step_times import typical_step
from retool.types import Author, CallStatus, Problem, Span, StopReason, ToolCall, Trajectory

FAMILIES = {  # accuracy of the cold start, ReTool, text-only RL, ReTool without interpreter
    "remainder of a product": (0.66, 0.98, 0.31, 0.12),
    "remainder of a power": (0.58, 0.96, 0.12, 0.05),
    "greatest common divisor": (0.71, 0.99, 0.55, 0.34),
    "least common multiple": (0.64, 0.97, 0.42, 0.21),
    "digit sum of a power": (0.49, 0.93, 0.08, 0.06),
    "counting multiples": (0.62, 0.95, 0.47, 0.19),
    "two equations": (0.44, 0.86, 0.39, 0.24),
    "number in another base": (0.55, 0.94, 0.36, 0.17),
    "sum of a series": (0.69, 0.97, 0.28, 0.11),
}
LABELS = ("cold start", "ReTool", "text-only RL", "ReTool, interpreter off")
NOTES = (
    "where both arms began learning",
    "PPO with live execution, 40 steps",
    "same problems, steps and rollouts",
    "same weights, calls forbidden",
)


def systems() -> list[System]:
    rows = []
    for i, label in enumerate(LABELS):
        families = {name: accuracies[i] for name, accuracies in FAMILIES.items()}
        accuracy = sum(families.values()) / len(families)
        width = 0.9 * (accuracy * (1 - accuracy) / 240) ** 0.5 + 0.004
        rows.append(
            System(
                label=label,
                note=NOTES[i],
                accuracy=accuracy,
                ci95=(accuracy - 2 * width, accuracy + 1.9 * width),
                problems=240,
                samples=4,
                truncated=(0.02, 0.0, 0.04, 0.11)[i],
                code_ratio=(0.52, 0.99, 0.0, 0.0)[i],
                code_pass_rate=({"correct": 0.98, "incorrect": 0.71}, {"correct": 1.0, "incorrect": 0.88}, {}, {})[i],
                self_corrected=(0.21, 0.78, None, None)[i],
                pass_at={"1": accuracy, "4": min(1.0, accuracy + 0.08)},
                maj_at={"1": accuracy, "4": min(1.0, accuracy + 0.02)},
                families=families,
                protocol={"interpreter": "off" if i == 3 else "on", "sampling": {"temperature": 1.0, "top_p": 0.7}},
            )
        )
    return rows


def curves() -> list[CurveRow]:
    rng, rows = Random(0), []

    def add(arm: str, step: int, metric: str, value: float | None, band: float = 0.0) -> None:
        row = CurveRow(arm=arm, step=step, metric=metric, value=value)
        if band and value is not None:
            row |= {"low": max(0.0, value - band), "high": min(1.0, value + band)}
        rows.append(row)

    for step in range(0, 41, 4):
        learned = 1 - exp(-step / 9)
        for arm, first, last in (("ReTool", 0.6, 0.95), ("text-only RL", 0.24, 0.33)):
            add(arm, step, "accuracy", first + (last - first) * learned + rng.gauss(0, 0.008), 0.035)
            tool = arm == "ReTool"
            length = 88 - 20 * learned + 6 * step / 40 if tool else 74 + 16 * learned
            add(arm, step, "response_length.model", length + rng.gauss(0, 1))
            add(arm, step, "response_length.total", length + (9 + 4 * learned if tool else 0) + rng.gauss(0, 1))
            add(arm, step, "code_ratio", 0.52 + 0.47 * learned if tool else 0.0)
            add(arm, step, "code_lines", 1.1 + 2.2 * learned + rng.gauss(0, 0.05) if tool else 0.0)
            add(arm, step, "correct_code_count", int(480 + 510 * learned) if tool else 0)
            add(arm, step, "code_pass_rate.correct", 0.98 + 0.02 * learned if tool else None)
            add(arm, step, "code_pass_rate.incorrect", 0.74 + 0.05 * learned + rng.gauss(0, 0.05) if tool else None)
            add(arm, step, "self_correction.of_failed", 0.2 + 0.6 * learned if tool else None, 0.06)
            add(arm, step, "self_correction.diagnosed", 0.1 + 0.4 * learned if tool else None)
            add(arm, step, "self_correction.of_all", 0.02 + 0.03 * learned if tool else None)
            add(arm, step, "invocation_timing", 0.42 - 0.2 * learned + rng.gauss(0, 0.006) if tool else None)
    for step in range(1, 41):
        for arm, first, last in (("ReTool", 0.2, 0.92), ("text-only RL", -0.5, -0.32)):
            add(arm, step, "reward", first + (last - first) * (1 - exp(-step / 9)) + rng.gauss(0, 0.05))
            add(arm, step, "entropy", 0.4 * exp(-step / 25) + rng.gauss(0, 0.01))
            add(arm, step, "kl_sampler_learner", 0.0004 + abs(rng.gauss(0, 0.00008)))
    return rows


def trajectory(
    problem: Problem,
    *parts: str | tuple[str, str, CallStatus],
    arm: str,
    step: int,
    answer: str | None,
    sample: int = 0,
) -> Trajectory:
    """A trajectory from its parts: text of the model, or a call as (code, output, status)."""
    spans: list[Span] = []
    calls: list[ToolCall] = []

    def ids(text: str) -> list[int]:
        return list(range(1, 1 + max(1, len(text) // 3)))

    written = ""  # by the model since its last call
    for part in parts:
        if isinstance(part, str):
            written += part
            continue
        code, output, status = part
        start = sum(len(span.ids or ()) for span in spans) + len(ids(written))
        calls.append(ToolCall(len(spans), start, code, output, status))
        text = f"{written}<code>\n{code}\n</code>"
        spans.append(Span(Author.MODEL, ids(text), text, [-0.1] * len(ids(text)), step))
        result = f"\n<interpreter>\n{output}\n</interpreter>\n"
        spans.append(Span(Author.INTERPRETER, ids(result), result))
        written = ""
    if written:
        spans.append(Span(Author.MODEL, ids(written), written, [-0.1] * len(ids(written)), step))
    correct = answer == problem.answer
    return Trajectory(
        id=f"{arm}-{step}-{problem.id}-{sample}",
        step=step,
        arm=arm,
        seed=0,
        sample=sample,
        group=f"{step}-{problem.id}",
        model="nano",
        protocol="tags",
        problem=problem,
        prompt_ids=[1, 2, 3],
        spans=spans,
        calls=calls,
        stop=StopReason.EOS if answer else StopReason.TOKENS,
        answer=answer,
        correct=correct,
        reward={"total": 1.0 if correct else -1.0},
    )


POWER = Problem(
    "p17", "What is the remainder when 17 to the power 23 is divided by 409?", "302", "remainder of a power"
)
DIGITS = Problem("p40", "What is the sum of the digits of 29 to the power 9?", "65", "digit sum of a power")
LAMPS = Problem(
    "p88",
    "Two lamps flash every 84 and every 132 seconds. After how many seconds do they flash together again?",
    "924",
    "least common multiple",
)


def entries() -> list[Entry]:
    ok, error = CallStatus.OK, CallStatus.ERROR
    search = "# every lamp's multiples, until one fits both\nt = 84\nwhile t % 132 != 0:\n    t += 84\nprint(t)"
    prompt = "Question: {}\nReason step by step, call Python with <code>, and answer in \\boxed{{}}.\n"
    digits = ("print(sum(digits(29**9)))", "NameError: name 'digits' is not defined", error)
    written_out = ("print(sum(int(d) for d in str(29**9)))", "65", ok)
    endless = ("while True: pass", "time limit of 1 s", CallStatus.TIME_LIMIT)
    power, sum_of_digits, lcm = "We need 17^23 mod 409. ", "We need the digit sum of 29^9. ", "We need the lcm. "

    def told(run: str, origin: Origin, step: int, problem: Problem, answer: str | None, *parts, **known) -> Entry:
        end = [f"So the answer is \\boxed{{{answer}}}."] if answer else []
        t = trajectory(problem, *parts, *end, arm=run, step=step, answer=answer)
        pieces = {token: f"t{token} " for span in t.spans for token in span.ids or ()}
        prompted = prompt.format(problem.text)
        return Entry(run=run, origin=origin, step=step, trajectory=t, prompt=prompted, pieces=pieces, **known)

    def learned(t: Trajectory) -> LearnerTokens:
        count = t.tokens(Author.MODEL)
        return LearnerTokens(
            [-0.1 - 0.002 * (i % 7) for i in range(count)], [(-1) ** i * i / count for i in range(count)]
        )

    by_hand = "17^2 is 289. 17^4 is 85. 17^8 is 272. 17^16 is 364. 17^23 is 118. "
    mended = {"corrections": [Correction(0, 1, digits[1], "That is not a function.")]}
    timed = {"seconds": [CallSeconds(0.004, 0.0121)], "purposes": ["calculation"]}
    last = told("ReTool", Origin.ROLLOUT, 40, POWER, "302", power, ("print(17**23 % 409)", "302", ok))
    return [
        told("ReTool", Origin.HELD_OUT, 0, POWER, "102", power + "17^2 is 289. 17^4 is 83. 17^8 is 345. "),
        told("ReTool", Origin.HELD_OUT, 0, DIGITS, "58", sum_of_digits, digits),
        told("ReTool", Origin.HELD_OUT, 0, LAMPS, "924", "They share 12. 84 / 12 = 7. 7 * 132 = 924. "),
        told("ReTool", Origin.HELD_OUT, 8, POWER, "302", power, ("print(17**23 % 409)", "302", ok), **timed),
        told("ReTool", Origin.HELD_OUT, 8, LAMPS, None, lcm, endless),
        told(
            "ReTool",
            Origin.HELD_OUT,
            40,
            DIGITS,
            "65",
            sum_of_digits,
            digits,
            "That is no function. ",
            written_out,
            **mended,
        ),
        told("ReTool", Origin.HELD_OUT, 40, LAMPS, "924", lcm, (search, "924", ok), purposes=["search"]),
        replace(last, in_loss=True, learner=learned(last.trajectory)),
        told("text-only RL", Origin.HELD_OUT, 40, POWER, "118", power + by_hand),
    ]


def archive(shown: list[Entry]) -> Archive:
    found = Archive()
    for entry in shown:
        found.add(entry)
    return found


ALARMS = [
    Alarm("ReTool", "truncation", 3, 6, "responses cut off by a limit: 54% over the last 3 steps", "raise max_tokens"),
    Alarm("text-only RL", "entropy", 31, None, "entropy: 0.0080 nats a token over the last 3 steps", "raise the clip"),
]
PURPOSES = [
    Purposes("ReTool", "step 0", {"calculation": 130, "verification": 8, "search": 21}),
    Purposes("ReTool", "step 40", {"calculation": 160, "verification": 64, "search": 52, "symbolic": 9}),
]


def step_times() -> list[StepTimes]:
    """A step on a cluster, and one on a single machine."""
    with TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        write_times(run)
        cluster = typical_step(run, "ReTool")
    phases = {"rollout": 2.31, "update": 1.44, "weights": 0.01}
    return [cluster, StepTimes(label="text-only RL", step=17, steps=40, phases=phases, mean=phases, until_next=0.02)]


def demo_report() -> Report:
    return Report(
        title="ReTool in miniature",
        summary="With a Python interpreter in the loop a model of 0.9 M parameters solves 0.95 of the held-out "
        "problems; the same training with text only ends at 0.33. Take the interpreter away and 0.17 remain.",
        facts={
            "seed": 0,
            "seconds": 412.6,
            "RL steps": "40 in each arm",
            "rollouts": "128 a step",
            "model": "Qwen2, 0.86 M parameters",
            "sandbox": "fork server, no network",
            "machine": "2 CPU cores",
            "torch": "2.13.0",
        },
        systems=systems(),
        comparisons=[
            Comparison("cold start", "ReTool", 240, 0.35, (0.31, 0.39), 1e-5),
            Comparison("ReTool", "text-only RL", 240, -0.62, (-0.66, -0.58), 1e-5),
        ],
        curves=curves(),
        watched=["ReTool", "text-only RL"],
        alarms=ALARMS,
        purposes=PURPOSES,
        step_times=step_times(),
        archive=archive(entries()),
    )


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    write_report(folder / "report.html", demo_report())
    save_chart_png(folder / "report.png", demo_report())
