"""The command line: verbs, and what becomes of errors."""

from retool.cli.main import main

__all__ = ["main"]
