"""Runs Python code written by a model: fast, contained, and with truthful verdicts.

    async with Sandbox() as box:
        result = await box.run("print(6 * 7)")

The client (`client`) starts one supervisor process, which owns queue, clocks and verdicts (`supervisor`). It starts
zygotes, interpreters with the usual imports already done (`zygote`), which fork one child for each execution
(`child`). This package is imported by all four, so it loads its parts only when they are asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retool.config.sandbox import Limits, SandboxConfig
    from retool.sandbox.client import Sandbox, Session
    from retool.sandbox.isolation import describe_isolation
    from retool.sandbox.result import Result

__all__ = ["Limits", "Result", "Sandbox", "SandboxConfig", "Session", "describe_isolation"]

_HOME = {
    "Limits": "retool.config.sandbox",
    "Result": "retool.sandbox.result",
    "Sandbox": "retool.sandbox.client",
    "SandboxConfig": "retool.config.sandbox",
    "Session": "retool.sandbox.client",
    "describe_isolation": "retool.sandbox.isolation",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
