"""What a machine offers, before anyone trains on it."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from retool.config.schema import Config
from retool.errors import RetoolError
from retool.runs import environment
from retool.sandbox import Sandbox, describe_isolation


def diagnose(config: Config) -> Iterator[str]:
    """Lines to print. Starts a sandbox and runs a snippet in it; raises RetoolError if that cannot be done."""
    facts = environment()
    yield f"retool {facts['retool']}, Python {facts['python']}, {facts['platform']}"
    yield ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            yield f"GPU {index}: {device.name}, {device.total_memory / 2**30:.0f} GiB"
    else:
        yield f"no GPU; {torch.get_num_threads()} CPU threads"
    with Sandbox(config.sandbox) as sandbox:
        yield f"sandbox: {describe_isolation(sandbox.isolation)}"
        result = sandbox.run_blocking("print(6 * 7)")
        if result.text != "42":
            raise RetoolError(f"the sandbox answered {result.text!r} to print(6 * 7), status {result.status}")
        yield f"sandbox: a snippet ran in {1000 * result.wall_s:.1f} ms"
