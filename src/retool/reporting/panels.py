"""Which curves are drawn together, and what is said about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from retool.reporting.record import CurveRow


@dataclass(frozen=True, slots=True)
class Panel:
    """A small chart over training steps. `parts` maps each metric to the name of its line ("" if there is only one);
    the first is drawn solid, the second dashed, the third dotted. `domain` fixes the vertical axis."""

    title: str
    parts: dict[str, str]
    explanation: str = ""
    domain: tuple[float, float] | None = None

    @property
    def key(self) -> str:
        """A name of its own: a metric is in one panel only."""
        return f"panel-{next(iter(self.parts))}"

    def rows(self, curves: Sequence[CurveRow]) -> list[CurveRow]:
        return [row for row in curves if row["metric"] in self.parts]


SHARE = (0.0, 1.0)

LEARNING = (
    Panel("Accuracy", {"accuracy": ""}, "Held-out problems, at each evaluated checkpoint.", SHARE),
    Panel("Reward", {"reward": ""}, "Mean over the rollouts of a training step."),
)
BEHAVIOUR = (
    Panel(
        "Response length",
        {"response_length.model": "the model's", "response_length.total": "all"},
        "Mean tokens of a response.",
    ),
    Panel("Code ratio", {"code_ratio": ""}, "Share of responses that ran code.", SHARE),
    Panel("Code lines", {"code_lines": ""}, "Mean lines of code of a response."),
    Panel("Correct code count", {"correct_code_count": ""}, "Calls that ran without error, over the whole set."),
    Panel(
        "Code pass rate",
        {"code_pass_rate.correct": "correct", "code_pass_rate.incorrect": "wrong"},
        "Share of responses with code whose last call ran, by answer.",
        SHARE,
    ),
    Panel("Invocation timing", {"invocation_timing": ""}, "Where the first call begins: 0 first token, 1 last.", SHARE),
    Panel(
        "Self-correction",
        {
            "self_correction.of_failed": "of those with an error",
            "self_correction.diagnosed": "said why",
            "self_correction.of_all": "of all",
        },
        "Share of responses in which code failed, was changed, and then ran.",
        SHARE,
    ),
)
TRAINING = (
    Panel("Entropy", {"entropy": ""}, "Nats a token of what the model writes."),
    Panel("Sampler to learner KL", {"kl_sampler_learner": ""}, "Nats a token; 0 if both say the same."),
    Panel("Truncated", {"truncated_rate": ""}, "Share of rollouts that a limit cut off.", SHARE),
    Panel("Calls that ran", {"ok_call_rate": ""}, "Share of the rollouts' calls without an error.", SHARE),
    Panel("Explained variance", {"explained_variance": ""}, "Of the returns, by the critic."),
)


def present(panels: Sequence[Panel], curves: Sequence[CurveRow]) -> list[Panel]:
    """The panels that have at least one point to draw."""
    return [
        panel
        for panel in panels
        if any(row["value"] is not None and isfinite(row["value"]) for row in panel.rows(curves))
    ]


def others(curves: Sequence[CurveRow]) -> list[Panel]:
    """A panel for each metric that no named panel shows, under its own name."""
    named = {metric for panel in (*LEARNING, *BEHAVIOUR, *TRAINING) for metric in panel.parts}
    names = dict.fromkeys(row["metric"] for row in curves if row["metric"] not in named)
    return [Panel(name, {name: ""}) for name in names]
