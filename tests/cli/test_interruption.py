"""A run that is stopped, in whatever way, goes on from its last checkpoint and ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_traces import write_traces

WORDS = [
    *("model.architecture.hidden_size=32", "model.architecture.num_hidden_layers=2", "threads=1"),
    *("sft.steps=40", "sft.save_every=1", "sft.batch_size=4", "sft.warmup_steps=2"),
]


def command(traces: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "retool", "sft", "nano", *WORDS, "--traces", str(traces), "--out", str(out)]


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_traces(tmp_path_factory.mktemp("traces") / "traces.jsonl")


@pytest.fixture(scope="module")
def undisturbed(traces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    subprocess.run(command(traces, out), check=True, capture_output=True)
    return out


@pytest.mark.parametrize(
    ("how", "code", "save_every"),
    [(signal.SIGINT, 130, 1), (signal.SIGTERM, 143, 50), (signal.SIGKILL, -signal.SIGKILL, 1)],
)
def test_a_stopped_run_goes_on(
    how: signal.Signals, code: int, save_every: int, traces: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """SIGTERM saves the step that it comes in, though no checkpoint was due."""
    words = [*command(traces, tmp_path / "run"), f"sft.save_every={save_every}"]
    out = tmp_path / "run"
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (out / "metrics.jsonl").exists() or len((out / "metrics.jsonl").read_bytes().splitlines()) < 3:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, how)
        message = process.stderr.read()
    assert process.returncode == code
    if how is not signal.SIGKILL:
        assert "Traceback" not in message
        assert "run the same command again" in message
    assert not (out / "checkpoints" / "step-40").exists()
    if how is signal.SIGTERM:
        assert len(list((out / "checkpoints").glob("step-*"))) == 1

    subprocess.run(words, check=True, capture_output=True)
    assert (out / "metrics.jsonl").read_bytes() == (undisturbed / "metrics.jsonl").read_bytes()
    weights = [folder / "checkpoints" / "step-40" / "model.safetensors" for folder in (out, undisturbed)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
