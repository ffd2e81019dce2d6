"""Supervised fine-tuning on cold-start traces: the model learns that, and how, code can be called."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from retool.config.schema import Config, ModelConfig
from retool.data.jsonl import read_jsonl
from retool.errors import UsageError
from retool.learner.checkpoint import drop_old_states, latest_resumable, load_checkpoint, save_checkpoint
from retool.learner.compatibility import check_learnable
from retool.learner.optimizer import Optimizer
from retool.learner.packing import Example
from retool.learner.policy import create_model, load_trainable
from retool.learner.sft import sft_step
from retool.learner.tokenizer import check_reload, train_tokenizer
from retool.learner.trained import Trained
from retool.protocol import make_protocol
from retool.runs import RunFolder, environment
from retool.stages.progress import Progress, console
from retool.stages.training.logbook import Logbook
from retool.stages.training.loggers import check_loggers, last_logged, open_loggers
from retool.stages.training.passes import draw_in_passes
from retool.stages.training.processes import to_be_sharded, training_processes
from retool.stages.training.stopping import Stopped, Stopping
from retool.stages.workbench import prepare_torch
from retool.types import Kind, Trace


def run_sft(config: Config, traces_path: Path, out: Path) -> Path:
    """Train on the traces of a JSONL file; returns the last checkpoint. Goes on where a run in `out` stopped. SIGTERM
    saves the step at hand and raises `Stopped`."""
    check_loggers(config.log_to)
    sft = config.sft
    traces = read_traces(traces_path)
    prepare_torch(config)

    with training_processes(config.model) as processes, Stopping(processes=processes) as stop:
        run = RunFolder(out, processes.is_writer)
        run.open(config, environment(traces=len(traces), processes=processes.size))
        resumed = processes.once(lambda: latest_resumable(run.checkpoints))
        model, tokenizer = _policy(to_be_sharded(config.model, processes), config.seed, traces, resumed)
        check_learnable(model)
        examples = make_examples(config, tokenizer, model, traces)
        steps = sft.steps or max(1, sft.epochs * len(examples) // sft.batch_size)
        dtype = model.dtype
        processes.shard(model)
        trained = Trained(model, Optimizer(model, sft, steps), dtype, processes=processes)
        first = load_checkpoint(resumed, trained)["step"] if resumed else 0
        logged = last_logged(run)
        processes.once(lambda: run.rewind(first))

        if stop.agreed():
            raise Stopped(None)
        name = f"SFT ({config.protocol.name})"
        with open_loggers(config, run, first, logged) as loggers, Progress(name, steps, first) as progress:
            logbook = Logbook(run, loggers)
            for step in range(first + 1, steps + 1):
                began = time.perf_counter()
                batch = draw_in_passes(examples, sft.batch_size, config.seed, step - 1)
                metrics = sft_step(model, trained.optimizer, batch, sft.micro_batch_tokens, processes)
                logbook.write(step, metrics, _timings(batch, time.perf_counter() - began))
                progress.step_done(f"loss {metrics['loss']:.3f}, accuracy {metrics['token_accuracy']:.3f}")
                ends_here = stop.agreed()
                if step % sft.save_every == 0 or step == steps or ends_here:
                    saved = save_checkpoint(run.checkpoints, step, trained, tokenizer, {})
                    processes.once(lambda: drop_old_states(run.checkpoints, 1))
                if ends_here and step < steps:
                    raise Stopped(saved)
    return run.checkpoints / f"step-{steps}"


def _timings(batch: Sequence[Example], seconds: float) -> dict[str, float]:
    return {
        "seconds": seconds,
        "completions_per_second": len(batch) / seconds,
        "tokens_per_second": sum(map(len, batch)) / seconds,
    }


def read_traces(path: Path) -> list[Trace]:
    """The traces of a JSONL file. Raises UsageError for a missing or empty file and for a row that is no trace."""
    traces = []
    for number, row in read_jsonl(path):
        try:
            traces.append(Trace.from_json(row))
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path}:{number} is not a trace: {error}; `retool synth` makes traces") from error
    if not traces:
        raise UsageError(f"{path} holds no traces; `retool synth` makes some")
    return traces


def make_examples(
    config: Config, tokenizer: PreTrainedTokenizerFast, model: PreTrainedModel, traces: Sequence[Trace]
) -> list[Example]:
    """Traces as ids with the model's tokens marked. Those longer than the model's context are left out, with a word."""
    protocol = make_protocol(config.protocol, tokenizer)
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or float("inf")
    examples = []
    for trace in traces:
        rendered = protocol.render(trace)
        mask = [False] * len(rendered.prompt_ids) + rendered.model_mask
        examples.append(Example(rendered.prompt_ids + rendered.response_ids, mask))
    fitting = [example for example in examples if len(example) <= context]
    if len(fitting) < len(examples):
        console.print(
            f"{len(examples) - len(fitting)} traces are longer than the model's context of {context}: left out"
        )
    if not fitting:
        raise UsageError(f"no trace fits into the model's context of {context} tokens")
    return fitting


def _policy(
    config: ModelConfig, seed: int, traces: Sequence[Trace], resumed: Path | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The resumed checkpoint, the configured model, or a new one with a tokenizer learned from the traces."""
    if resumed or config.path:
        return load_trainable(config, seed, resumed)
    if config.lora.rank:
        raise UsageError("adapters (model.lora) learn beside a model that is there already: give model.path")
    tokenizer = train_tokenizer(map(_text, traces), config.vocabulary)
    model = create_model(config, tokenizer, seed)
    check_reload(model.config, tokenizer, _text(traces[0]))
    return model, tokenizer


def _text(trace: Trace) -> str:
    marks = {Kind.TEXT: "{}", Kind.CODE: "\n<code>\n{}\n</code>", Kind.RESULT: "\n<interpreter>\n{}\n</interpreter>\n"}
    return trace.problem.text + "\n" + "".join(marks[s.kind].format(s.text) for s in trace.segments)
