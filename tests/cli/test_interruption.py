"""A run that is stopped, in whatever way, goes on from its last checkpoint and ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from small_traces import write_traces

WORDS = [
    *("model.architecture.hidden_size=32", "model.architecture.num_hidden_layers=2", "threads=1"),
    *("sft.steps=40", "sft.save_every=5", "sft.batch_size=4", "sft.warmup_steps=2"),
]
HOW_TO_GO_ON = "run the same command again"


def command(traces: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "retool", "sft", "nano", *WORDS, "--traces", str(traces), "--out", str(out)]


def steps_done(out: Path) -> int:
    return len((out / "metrics.jsonl").read_bytes().splitlines()) if (out / "metrics.jsonl").exists() else 0


def stop(traces: Path, out: Path, how: signal.Signals) -> tuple[int, str]:
    """Send the run a signal when it has done three more steps: its exit code, and what it said."""
    before, deadline = steps_done(out), time.monotonic() + 60
    with subprocess.Popen(command(traces, out), stderr=subprocess.PIPE, text=True) as process:
        while steps_done(out) < before + 3:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, how)
        message = process.stderr.read()
    assert "Traceback" not in message
    assert not (out / "checkpoints" / "step-40").exists()
    return process.returncode, message


def test_a_run_that_is_stopped_in_every_way_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    traces = write_traces(tmp_path / "traces.jsonl")
    out, undisturbed = tmp_path / "stopped", tmp_path / "undisturbed"
    with subprocess.Popen(command(traces, undisturbed), stderr=subprocess.PIPE) as beside:
        code, message = stop(traces, out, signal.SIGTERM)
        assert code == 143 and HOW_TO_GO_ON in message
        assert (out / "checkpoints" / f"step-{steps_done(out)}").exists(), "it saves the step that it comes in"
        code, message = stop(traces, out, signal.SIGINT)
        assert code == 130 and HOW_TO_GO_ON in message
        code, _ = stop(traces, out, signal.SIGKILL)
        assert code == -signal.SIGKILL
        subprocess.run(command(traces, out), check=True, capture_output=True)
        beside.communicate()
    assert beside.returncode == 0
    assert (out / "metrics.jsonl").read_bytes() == (undisturbed / "metrics.jsonl").read_bytes()
    weights = [folder / "checkpoints" / "step-40" / "model.safetensors" for folder in (out, undisturbed)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
