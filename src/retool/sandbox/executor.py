"""What runs code, as the agent loop asks for it: a `Sandbox` of this process, or one elsewhere."""

from contextlib import AbstractContextManager
from typing import Any, Protocol

from retool.sandbox.result import Result


class BlockExecutor(Protocol):
    """Runs blocks that find each other's variables: what a `Session` does."""

    async def run(self, code: str, *, echo: bool = False) -> Result: ...


class Executor(Protocol):
    """See `Sandbox`, which is one."""

    @property
    def isolation(self) -> dict[str, Any]: ...

    async def run(self, code: str, *, key: object = None, group: str = "", echo: bool = False) -> Result: ...

    def session(self, key: object = None, *, group: str = "") -> AbstractContextManager[BlockExecutor]: ...
