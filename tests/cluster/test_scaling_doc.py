"""docs/scaling.md shows what the command prints today."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from retool.cli.main import cli

DOC = Path(__file__).parents[2] / "docs" / "scaling.md"


def test_the_plan_in_the_document_is_the_one_that_is_made() -> None:
    shown = CliRunner(env={"COLUMNS": "110"}).invoke(cli, ["cluster", "plan", "retool-32b"])
    assert shown.exit_code == 0
    printed = "\n".join(line.rstrip() for line in shown.output.splitlines()).strip()
    assert printed in DOC.read_text(encoding="utf-8")
