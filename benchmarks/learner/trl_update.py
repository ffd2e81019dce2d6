"""TRL's side of the comparison: `GRPOTrainer.compute_loss`, backward, clipping and the trainer's own optimizer. Runs in
TRL's Python.

Lines on standard input: first the set-up (`model`, `prompts` and `responses` as ids, `advantages`, `micro_batch`
sequences, `threads`, `device`, `dtype`), then anything to have one update made. Each is answered by a line.
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
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the libraries print goes to standard error
    setup = json.loads(sys.stdin.readline())
    torch.set_num_threads(setup["threads"])
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(setup, folder)
        optimizer = trainer.create_optimizer()
        batch = {name: x.to(setup["device"]) for name, x in padded(setup).items()}
        facts = {"trl": trl.__version__, "torch": torch.__version__, "optimizer": type(optimizer).__name__}
        print(json.dumps(facts), file=answers, flush=True)
        for _ in sys.stdin:
            began = time.perf_counter()
            norm = update(trainer, batch, len(setup["prompts"]), setup["micro_batch"])
            answer = {"seconds": time.perf_counter() - began, "norm": norm, "gigabytes": gigabytes()}
            print(json.dumps(answer), file=answers, flush=True)


def gigabytes() -> float | None:
    """The most that the GPU's tensors have taken so far."""
    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else None


def make_trainer(setup: dict[str, Any], folder: str) -> GRPOTrainer:
    sequences = len(setup["prompts"])
    config = GRPOConfig(
        output_dir=folder,
        per_device_train_batch_size=setup["micro_batch"],
        gradient_accumulation_steps=sequences // setup["micro_batch"],
        num_generations=sequences,
        learning_rate=setup["learning_rate"],
        loss_type="grpo",
        use_cpu=setup["device"] == "cpu",
        bf16=False,  # no autocast: the weights are of the type that is asked for
        gradient_checkpointing=False,
        model_init_kwargs={"dtype": setup["dtype"]},
        report_to="none",
    )
    trainer = GRPOTrainer(
        model=setup["model"],
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=config,
        train_dataset=Dataset.from_list([{"prompt": "-"}] * sequences),
        processing_class=AutoTokenizer.from_pretrained(setup["model"], padding_side="left"),
    )
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = config.gradient_accumulation_steps  # which `train` would set
    return trainer


def padded(setup: dict[str, Any]) -> dict[str, torch.Tensor]:
    """As `_generate_and_score_completions` hands them over: prompts padded on the left, completions on the right."""

    def rectangle(rows: list[list[int]], left: bool) -> tuple[torch.Tensor, torch.Tensor]:
        longest = max(map(len, rows))
        ids, mask = torch.zeros(len(rows), longest, dtype=torch.long), torch.zeros(len(rows), longest, dtype=torch.long)
        for row, part in enumerate(rows):
            place = slice(longest - len(part), longest) if left else slice(0, len(part))
            ids[row, place], mask[row, place] = torch.tensor(part), 1
        return ids, mask

    prompt_ids, prompt_mask = rectangle(setup["prompts"], left=True)
    completion_ids, completion_mask = rectangle(setup["responses"], left=False)
    return {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": completion_ids,
        "completion_mask": completion_mask,
        "advantages": torch.tensor(setup["advantages"]),
        "num_items_in_batch": completion_mask.sum(),
    }


def update(trainer: GRPOTrainer, batch: dict[str, Any], sequences: int, micro_batch: int) -> float:
    """`compute_loss` and backward for some sequences at a time, clipping, and the trainer's own optimizer. Returns the
    gradient's norm."""
    for begin in range(0, sequences, micro_batch):
        part = slice(begin, begin + micro_batch)
        rows = {
            name: x[part] if isinstance(x, list) or (torch.is_tensor(x) and x.dim()) else x for name, x in batch.items()
        }
        trainer.compute_loss(trainer.model, rows).backward()
    norm = torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad(set_to_none=True)
    return float(norm)


if __name__ == "__main__":
    main()
