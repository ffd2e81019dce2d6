"""TRL's side of the comparison: the rollout of a `GRPOTrainer` with the sandbox as its tool. Runs in TRL's Python.

Lines on standard input: first the set-up (`model`, `prompts`: one list of messages each, `prompt_ids` to check against,
`max_tokens`, `max_calls`, `threads`), then one question a line (`samples` per prompt, `prompts`: how many of them,
`seed`, `learn`: whether a whole step is to be timed). Each is answered by a line.

Timed is `GRPOTrainer._generate`, which renders and tokenizes the prompts, samples with transformers' `generate`, runs
the tools, and splices until no completion calls any more; or with `learn` all of a step: that, rewards, `compute_loss`
and backward for `MICRO_BATCH` sequences at a time, clipping, and the trainer's own optimizer.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from typing import Any

import torch
import trl
from datasets import Dataset
from learner.trl_update import update
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer
from trl.chat_template_utils import qwen3_template

from retool.sandbox import Sandbox

EMPTY_RESULT = "[no output]"
MICRO_BATCH = 8  # the trainer's default


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the libraries print goes to standard error
    setup = json.loads(sys.stdin.readline())
    torch.set_num_threads(setup["threads"])
    with Sandbox() as box, tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(setup, box, folder)
        ids = trainer._tokenize_prompts(setup["prompts"])[0]
        if ids != setup["prompt_ids"]:
            raise SystemExit("TRL renders the prompts to other tokens than ReTool's protocol does")
        print(json.dumps({"trl": trl.__version__, "torch": torch.__version__}), file=answers, flush=True)
        for line in sys.stdin:
            question = json.loads(line)
            torch.manual_seed(question["seed"])
            prompts = setup["prompts"][: question["prompts"]]
            rows = [{"prompt": prompt} for prompt in prompts for _ in range(question["samples"])]
            print(json.dumps(roll_out(trainer, rows, question["learn"])), file=answers, flush=True)


def make_trainer(setup: dict[str, Any], box: Sandbox, folder: str) -> GRPOTrainer:
    def python(code: str):  # no annotation of what it returns: that would be added to the schema in the prompt
        """
        Executes a complete Python script and returns what it prints, or its error.

        Args:
            code: The script, with its imports.
        """
        return box.run_blocking(code).text.rstrip("\r\n") or EMPTY_RESULT

    tokenizer = AutoTokenizer.from_pretrained(setup["model"], padding_side="left")
    tokenizer.response_template = qwen3_template  # TRL's own parser of Hermes calls; it knows templates by their text
    batch = len(setup["prompts"]) * setup["samples"]
    config = GRPOConfig(
        output_dir=folder,
        per_device_train_batch_size=MICRO_BATCH,
        gradient_accumulation_steps=batch // MICRO_BATCH,
        learning_rate=setup["learning_rate"],
        num_generations=setup["samples"],
        max_completion_length=setup["max_tokens"],
        max_tool_calling_iterations=setup["max_calls"],
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        model_init_kwargs={"dtype": "float32"},
        report_to="none",
    )
    trainer = GRPOTrainer(
        model=setup["model"],
        reward_funcs=lambda completions, **_: [float(n % 2) for n in range(len(completions))],  # a gradient at least
        args=config,
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in setup["prompts"]]),
        processing_class=tokenizer,
        tools=[python],
    )
    trainer.model.train()  # as in a step of training
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = config.gradient_accumulation_steps  # which `train` would set
    return trainer


def roll_out(trainer: GRPOTrainer, rows: list[dict[str, Any]], learn: bool) -> dict[str, Any]:
    """The rollout of one step, as the trainer does it, and with `learn` the rest of the step. How long it took, of a
    rollout the part up to the finished completions."""
    generate, timed = trainer._generate, {}

    def timed_generate(prompts: list) -> Any:
        began = time.perf_counter()
        result = generate(prompts)
        timed["seconds"], timed["result"] = time.perf_counter() - began, result
        return result

    trainer._generate = timed_generate
    began = time.perf_counter()
    batch = trainer._generate_and_score_completions(rows)
    del trainer._generate
    if learn:
        update(trainer, batch, len(rows), MICRO_BATCH)
        timed["seconds"] = time.perf_counter() - began
    _, _, mask, completions, *_ = timed["result"]
    turns = [sum(bool(message.get("tool_calls")) for message in completion) for completion in completions]
    return {
        "seconds": timed["seconds"],
        "completions": len(completions),
        "model_tokens": sum(map(sum, mask)),
        "calling_turns": turns,
    }


if __name__ == "__main__":
    main()
