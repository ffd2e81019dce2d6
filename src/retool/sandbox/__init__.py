"""Runs Python code written by a model: fast, contained, and with truthful verdicts.

    async with Sandbox() as box:
        result = await box.run("print(6 * 7)")

The client (`client`) starts one supervisor process, which owns queue, clocks and verdicts (`supervision`). It starts
zygotes, interpreters with the usual imports already done, which fork one child for each execution (`interpreter`) and
lock it up (`containment`). `service` offers all of it over HTTP. This package is imported by all of these processes, so
it loads its parts only when they are asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retool.config.sandbox import Limits, SandboxConfig
    from retool.sandbox.client import Sandbox, Session
    from retool.sandbox.containment.isolation import describe_isolation
    from retool.sandbox.executor import BlockExecutor, Executor
    from retool.sandbox.result import Result

__all__ = [
    "BlockExecutor",
    "Executor",
    "Limits",
    "Result",
    "Sandbox",
    "SandboxConfig",
    "Session",
    "describe_isolation",
]

_HOME = {
    "BlockExecutor": "retool.sandbox.executor",
    "Executor": "retool.sandbox.executor",
    "Limits": "retool.config.sandbox",
    "Result": "retool.sandbox.result",
    "Sandbox": "retool.sandbox.client",
    "SandboxConfig": "retool.config.sandbox",
    "Session": "retool.sandbox.client",
    "describe_isolation": "retool.sandbox.containment.isolation",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
