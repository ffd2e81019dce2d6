"""Evaluations: what they leave, how they go on after a stop, sweeps, several sets, endpoints."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from chat_server import chat_server, completion
from retool.config.schema import Config
from retool.errors import RetoolError, UsageError
from retool.runs import read_trajectories
from retool.stages.eval.recipe import run_eval
from retool.stages.eval.samples import SampleLog
from retool.stages.sources import load_heldout
from retool.types import StopReason, Trajectory


def problems_file(folder: Path, name: str, *answers: int) -> Path:
    path = folder / f"{name}.jsonl"
    rows = [{"problem": f"{name}: what is {n} + 0?", "answer": n, "id": n} for n in answers]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config_of(model: Path | None, data: str, **sections: Any) -> Config:
    rollout = {"max_tokens": 24, "rows": 4, "deterministic": True} | sections.pop("rollout", {})
    return Config.model_validate(
        {
            "threads": 1,
            "model": {"path": model and str(model), "device": "cpu"},
            "data": {"heldout": data},
            "protocol": {"instruction": ""},
            "rollout": rollout,
            "sandbox": {"allow_weak": True},
            "eval": {"samples": 2} | sections.pop("eval", {}),
            **sections,
        }
    )


def evaluate(config: Config, out: Path) -> dict[str, Any]:
    return asyncio.run(run_eval(config, load_heldout(config), out))


def untimed(out: Path) -> list[dict[str, Any]]:
    return [t.to_json() | {"timing": None} for t in read_trajectories(out / "samples.jsonl")]


@pytest.fixture
def config(model_folder: Path, tmp_path: Path) -> Config:
    return config_of(model_folder, str(problems_file(tmp_path, "sums", 1, 2, 3)))


def test_every_sample_is_kept_in_order(config: Config, tmp_path: Path) -> None:
    evaluate(config, tmp_path / "out")
    kept = [(row["problem"]["id"], row["sample"]) for row in untimed(tmp_path / "out")]
    assert kept == [(str(problem), sample) for problem in (1, 2, 3) for sample in (0, 1)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "protocol.json",
        "results.json",
        "samples.jsonl",
        "timings.json",
    ]


def test_the_results_carry_the_whole_protocol(config: Config, tmp_path: Path) -> None:
    results = evaluate(config, tmp_path / "out")
    assert results == json.loads((tmp_path / "out" / "results.json").read_text())
    assert {"accuracy", "ci95", "pass_at", "maj_at", "problems", "samples", "truncated", "code_ratio"} <= results.keys()
    protocol = results["protocol"]
    assert protocol["prompt"]["text"] == "<user>{problem}<assistant>" and len(protocol["prompt"]["hash"]) == 16
    assert protocol["problems"]["sums"]["problems"] == 3
    assert protocol["sampling"] == {"temperature": 1.0, "top_p": 0.7, "top_k": 0, "min_p": 0.0}
    assert protocol["grader"]["name"] == "math-verify" and protocol["grader"]["version"]
    assert (protocol["engine"]["name"], protocol["token_exact"], protocol["calls"]) == ("engine", True, None)
    assert protocol["model"].keys() == {"path", "hash"}


def stopped_after(monkeypatch: pytest.MonkeyPatch, samples: int) -> None:
    """From now on an evaluation fails once so many responses have ended."""
    add = SampleLog.add

    def add_and_stop(log: SampleLog, trajectory: Trajectory) -> None:
        nonlocal samples
        add(log, trajectory)
        samples -= 1
        if samples == 0:
            raise RetoolError("the power is gone")

    monkeypatch.setattr(SampleLog, "add", add_and_stop)


def test_a_stopped_evaluation_goes_on_and_ends_as_if_it_had_not_been(config: Config, tmp_path: Path) -> None:
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    results = evaluate(config, undisturbed)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RetoolError, match="power is gone"):
        stopped_after(patch, 2)
        evaluate(config, out)
    partial = out / "samples.partial.jsonl"
    there = partial.read_bytes()
    assert 2 <= there.count(b"\n") < 6 and not (out / "results.json").exists()
    partial.write_bytes(there + there[:40])  # killed while it wrote
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RetoolError, match="power is gone"):
        stopped_after(patch, 1)
        evaluate(config, out)
    there = partial.read_bytes()
    sampled: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        add = SampleLog.add
        patch.setattr(SampleLog, "add", lambda log, t: (sampled.append(t.id), add(log, t)))
        again = evaluate(config, out)
    assert len(sampled) == 6 - there.count(b"\n")
    assert untimed(out) == untimed(undisturbed)
    assert again == results and not partial.exists()


def test_a_finished_evaluation_is_not_sampled_again(config: Config, tmp_path: Path) -> None:
    results = evaluate(config, tmp_path)
    before = (tmp_path / "samples.jsonl").read_bytes()
    assert evaluate(config, tmp_path) == results
    assert (tmp_path / "samples.jsonl").read_bytes() == before


def test_what_the_sandbox_lost_is_sampled_again(config: Config, tmp_path: Path) -> None:
    evaluate(config, tmp_path)
    rows = untimed(tmp_path)
    lost = [rows[0] | {"stop": StopReason.SANDBOX, "spans": []}, *rows[1:]]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row | {"timing": {}}) + "\n" for row in lost))
    assert evaluate(config, tmp_path)["lost"] == 0
    assert untimed(tmp_path) == rows


def test_another_protocol_does_not_go_on_in_the_folder(config: Config, tmp_path: Path) -> None:
    evaluate(config, tmp_path)
    changed = config.model_copy(update={"eval": config.eval.model_copy(update={"samples": 3})})
    with pytest.raises(UsageError, match=r"another protocol \(samples is 2 there, 3 now\); name another --out"):
        evaluate(changed, tmp_path)


def test_other_problems_do_not_go_on_in_the_folder(config: Config, tmp_path: Path) -> None:
    evaluate(config, tmp_path / "out")
    problems_file(tmp_path, "sums", 1, 2, 4)
    with pytest.raises(UsageError, match=r"another protocol \(problems\.sums\.hash is"):
        evaluate(config, tmp_path / "out")


def test_several_sets_are_measured_together_and_apart(model_folder: Path, tmp_path: Path) -> None:
    files = problems_file(tmp_path, "sums", 1, 2), problems_file(tmp_path, "powers", 1)
    config = config_of(model_folder, ",".join(map(str, files)))
    results = evaluate(config, tmp_path / "out")
    assert {name: found["problems"] for name, found in results["sets"].items()} == {"sums": 2, "powers": 1}
    assert results["problems"] == 3
    assert {row["problem"]["id"] for row in untimed(tmp_path / "out")} == {"sums/1", "sums/2", "powers/1"}


@pytest.mark.parametrize("data", ["puzzles,puzzles", "puzzles,", ","])
def test_a_list_of_sets_that_is_none_is_refused(data: str) -> None:
    with pytest.raises(UsageError, match="expected different sets with commas between them"):
        load_heldout(config_of(None, data))


def test_a_sweep_is_one_evaluation_for_each_number_of_calls(model_folder: Path, tmp_path: Path) -> None:
    config = config_of(model_folder, str(problems_file(tmp_path, "sums", 1, 2)), eval={"calls": [0, 2]})
    sweep = evaluate(config, tmp_path / "out")
    assert sweep == json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert [row["calls"] for row in sweep["by_calls"]] == [0, 2]
    assert sweep["by_calls"][0]["gain"] is None and sweep["by_calls"][1]["gain"]["problems"] == 2
    for calls in (0, 2):
        results = json.loads((tmp_path / "out" / f"calls-{calls}" / "results.json").read_text())
        assert results["protocol"]["calls"] == calls


def served(config: Config, out: Path, text: str = "\\boxed{1}") -> tuple[dict[str, Any], int]:
    """Evaluate a model behind a server that always says `text`; the results, and how many requests there were."""

    async def main() -> tuple[dict[str, Any], int]:
        async with chat_server(lambda _: completion(text)) as server:
            endpoint = {"url": server.url, "model": "their-model"}
            settings = Config.model_validate(
                config.model_dump() | {"eval": config.eval.model_dump() | {"endpoint": endpoint}}
            )
            return await run_eval(settings, load_heldout(settings), out), len(server.requests)

    return asyncio.run(main())


def test_a_model_behind_an_endpoint_is_evaluated_by_messages(tmp_path: Path) -> None:
    config = config_of(None, str(problems_file(tmp_path, "sums", 1, 2)), rollout={"deterministic": False})
    results, requests = served(config, tmp_path / "out")
    assert (results["accuracy"], results["model"], requests) == (0.5, "their-model", 4)
    assert (results["protocol"]["token_exact"], results["protocol"]["name"]) == (False, "messages")
    assert all(not row["token_exact"] for row in untimed(tmp_path / "out"))


def test_an_endpoint_is_asked_for_what_it_can_do(tmp_path: Path) -> None:
    data = str(problems_file(tmp_path, "sums", 1))
    with pytest.raises(UsageError, match="cannot give the same bytes twice"):
        served(config_of(None, data), tmp_path / "out")
    with pytest.raises(UsageError, match="takes temperature and top_p only"):
        served(config_of(None, data, rollout={"deterministic": False}, eval={"sampling": {"top_k": 5}}), tmp_path)


def test_there_must_be_a_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no model to evaluate: give --model"):
        evaluate(config_of(None, str(problems_file(tmp_path, "sums", 1))), tmp_path / "out")
