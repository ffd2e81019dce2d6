"""`sampler.backend` decides what a stage samples with; everything after that is the same."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from retool.config.schema import Config
from retool.errors import UsageError
from retool.stages.progress import Progress
from retool.stages.workbench import open_workbench
from retool.types import Author, Problem
from small_vllm import SmallVllm

PROBLEM = Problem("p1", "What is 12 times 7?", "84", "test")
WITHOUT_AIOHTTP = """
import asyncio, sys
sys.modules["aiohttp"] = None
from retool.config.schema import Config
from retool.stages.workbench import _open_sampler
async def opening():
    config = Config.model_validate({"sampler": {"backend": "vllm", "urls": ["http://127.0.0.1:1"]}})
    async with _open_sampler(config, None, 64):
        pass
asyncio.run(opening())
"""


def config_of(**sections: dict[str, Any]) -> Config:
    rollout = {"max_tokens": 60, "max_calls": 3, **sections.pop("rollout", {})}
    return Config.model_validate({"threads": 1, "rollout": rollout, **sections})


def test_a_rollout_by_vllm_is_a_rollout(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    vllm = SmallVllm(model)
    call = tokenizer.encode("<code>\nprint(12 * 7)\n</code>", add_special_tokens=False)
    answer = tokenizer.encode("\\boxed{84}", add_special_tokens=False)
    vllm.script = lambda ids: ([*answer, tokenizer.eos_token_id] if ids[-1] not in prompts else call) + [5] * 60
    prompts: set[int] = set()

    async def roll_out() -> Any:
        async with vllm.serve() as url:
            config = config_of(sampler={"backend": "vllm", "urls": [url]})
            async with open_workbench(config, model, tokenizer, [PROBLEM], model_name="m", arm="a") as bench:
                prompts.add(bench.protocol.prompt_ids(PROBLEM.text)[-1])
                with Progress("rollout", 1) as progress:
                    return await bench.roll_out(
                        [PROBLEM], step=0, samples=1, sampling=config.sampling, progress=progress
                    )

    (trajectory,) = asyncio.run(roll_out()).trajectories
    assert [span.author for span in trajectory.spans] == [Author.MODEL, Author.INTERPRETER, Author.MODEL]
    assert trajectory.spans[0].ids == call and trajectory.calls[0].output == "84"
    assert trajectory.correct and len(trajectory.spans[2].logprobs) == len(answer) + 1


def test_what_vllm_cannot_promise_is_refused(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    async def opening() -> None:
        config = config_of(sampler={"backend": "vllm", "urls": ["http://127.0.0.1:1"]}, rollout={"deterministic": True})
        async with open_workbench(config, model, tokenizer, [PROBLEM], model_name="m", arm="a"):
            pass

    with pytest.raises(UsageError, match="cannot give the same bytes twice"):
        asyncio.run(opening())


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    found = subprocess.run([sys.executable, "-c", WITHOUT_AIOHTTP], capture_output=True, text=True)
    assert "sampling by vLLM needs the library aiohttp: pip install 'retool[vllm]'" in found.stderr
