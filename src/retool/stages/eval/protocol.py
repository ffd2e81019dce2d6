"""The protocol of an evaluation: everything that its numbers depend on, as it stands in `results.json`."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import retool
from retool.config.schema import Config
from retool.types import Problem

_SAMPLE_BYTES = 1 << 20  # of the beginning and of the end of each file of weights


def describe(
    config: Config,
    problems: Sequence[Problem],
    *,
    name: str,
    prompt: str,
    engine: Mapping[str, Any],
    model: Mapping[str, Any],
    token_exact: bool,
    calls: int | None,
) -> dict[str, Any]:
    """The protocol as a JSON object. `prompt` is what a model reads of a problem called {problem}, rendered; `name` is
    how calls are written, `engine` what samples, `model` who answers."""
    return {
        "name": name,
        "interpreter": config.eval.interpreter,
        "calls": calls,
        "samples": config.eval.samples,
        "seed": config.seed,
        "data": config.data.heldout,
        "limit": config.data.heldout_limit,
        "problems": describe_problems(problems),
        "sampling": config.eval.sampling.model_dump(),
        "prompt": {"text": prompt, "hash": _hash(prompt)},
        "instruction": config.protocol.instruction,
        "fence": config.protocol.fence,
        "result_tokens": config.protocol.result_tokens,
        "rollout": config.rollout.model_dump(),
        "sandbox": config.sandbox.model_dump(),
        "engine": dict(engine),
        "model": dict(model),
        "token_exact": token_exact,
    } | describe_grading()


def describe_grading() -> dict[str, Any]:
    """Who decides what is right."""
    grader = {"name": "math-verify", "version": metadata.version("math-verify"), "answer": "last complete box"}
    return {"grader": grader, "retool": retool.__version__}


def describe_problems(problems: Sequence[Problem]) -> dict[str, Any]:
    """For each source: how many problems, and a hash of their texts and answers in any order."""
    by_source: dict[str, list[list[str]]] = defaultdict(list)
    for problem in problems:
        by_source[problem.source].append([problem.text, problem.answer])
    return {
        source: {"problems": len(found), "hash": _hash(json.dumps(sorted(found)))}
        for source, found in sorted(by_source.items())
    }


def fingerprint(path: str, revision: str | None) -> dict[str, str | None]:
    """Which model that is: of a folder, a hash of its config and of samples of its weights; else the revision that was
    taken from the hub."""
    folder = Path(path)
    if not folder.is_dir():
        return {"path": path, "revision": revision}
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        digest.update(f"{file.name} {file.stat().st_size}".encode())
        with file.open("rb") as content:
            digest.update(content.read(_SAMPLE_BYTES))
            content.seek(max(0, file.stat().st_size - _SAMPLE_BYTES))
            digest.update(content.read())
    return {"path": path, "hash": digest.hexdigest()}


def differences(protocol: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The settings in which two protocols differ: dotted name → [value, other value]; None stands for a missing one."""
    ours, theirs = _flat(protocol), _flat(other)
    return {key: [ours.get(key), theirs.get(key)] for key in ours | theirs if ours.get(key) != theirs.get(key)}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="backslashreplace"), digest_size=8).hexdigest()
