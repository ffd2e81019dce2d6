"""The house of docs/architecture.md, as statements about imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import retool

ROOT = Path(retool.__file__).parent
GROUND = {"types", "config", "errors", "files", "runs"}
PARTS = {
    "data",
    "puzzles",
    "traces",
    "sampling",
    "sandbox",
    "protocol",
    "grading",
    "objectives",
    "endpoint",
    "evaluation",
    "analysis",
    "reporting",
}
ALLOWED = {
    **{part: GROUND for part in PARTS},
    "kernels": set(),
    "sampling": GROUND | {"kernels"},
    "learner": GROUND | {"kernels", "objectives", "sampling"},
    "rollout": GROUND | {"sampling", "sandbox", "protocol", "grading", "objectives", "endpoint"},
    "cluster": GROUND,
    "stages": GROUND | PARTS | {"kernels", "learner", "rollout", "cluster"},
    "cli": GROUND | PARTS | {"stages", "cluster"},
    "config": {"config", "errors", "types"},
}


def imported(path: Path) -> set[str]:
    """The parts of retool that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("retool."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("retool.")}
    return found


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_a_floor_uses_only_the_floors_below_it(part: str) -> None:
    for path in (ROOT / part).rglob("*.py"):
        assert imported(path) <= ALLOWED[part] | {part}, path


def test_every_part_has_a_place_in_the_house() -> None:
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders == set(ALLOWED)


@pytest.mark.parametrize("module", ["cli.main", "stages.cluster.launch", "stages.cluster.controller"])
def test_what_starts_others_starts_without_torch(module: str) -> None:
    if "cluster" in module:
        pytest.importorskip("ray", reason="Ray is not installed")
    code = f"import sys, retool.{module}; print('torch' in sys.modules or 'transformers' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
