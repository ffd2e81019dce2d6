"""The folder of a synthesis belongs to one set of sources and to the settings that its bytes depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from retool.config.endpoint import EndpointConfig
from retool.config.load import dump_config
from retool.config.sandbox import Limits
from retool.config.schema import Config
from retool.data.jsonl import parse_json
from retool.errors import UsageError
from retool.files import publish
from retool.stages.sources import Worked

_ENDPOINT = ("url", "model", "temperature", "top_p", "max_tokens")  # the others may change between two attempts


def open_folder(config: Config, rows: Sequence[Worked], out: Path) -> None:
    """Make the folder, or check that what is in it was begun with the same. Raises UsageError if it was not."""
    path = out / "stages" / "settings.json"
    settings = _settings(config, rows)
    if path.exists():
        there = parse_json(path.read_bytes(), str(path))
        for key in [*settings, *there]:
            if settings.get(key) != there.get(key):
                raise UsageError(
                    f"{out} holds a synthesis with another {key} ({there.get(key)!r} there, {settings.get(key)!r} "
                    "now); name another --out, or delete that folder"
                )
    publish(path, json.dumps(settings, indent=1) + "\n")
    publish(out / "config.yaml", dump_config(config))


def _settings(config: Config, rows: Sequence[Worked]) -> dict[str, Any]:
    """Everything that the result depends on, by dotted names."""
    sections = {
        "synth": _synth(config),
        "sandbox": config.sandbox.model_dump(mode="json", include=set(Limits.model_fields)),
        "rollout": {"stateful": config.rollout.stateful, "echo": config.rollout.echo},
    }
    if config.synth.rewrite == "harvest":
        for name in ("model", "protocol", "sampling", "rollout"):
            sections[name] = getattr(config, name).model_dump(mode="json")
    return {"seed": config.seed, "sources": _digest(rows), **dict(_flat(sections))}


def _synth(config: Config) -> dict[str, Any]:
    settings = config.synth.model_dump(mode="json")
    for name in ("judge", "teacher"):
        endpoint: EndpointConfig | None = getattr(config.synth, name)
        settings[name] = endpoint and endpoint.model_dump(mode="json", include=set(_ENDPOINT))
    return settings


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _digest(rows: Sequence[Worked]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for problem, solution in rows:
        digest.update(json.dumps([problem.id, problem.text, problem.answer, problem.source, solution]).encode())
    return digest.hexdigest()
