"""Every setting of the system, typed, with its default and its meaning.

One class a part. A preset is a short YAML file that differs from these defaults (`presets/`). Nothing here imports
torch, so that the command line starts at once.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from retool.config.analysis import AnalysisConfig
from retool.config.base import Choice, Choices, Section
from retool.config.cluster import ClusterConfig
from retool.config.evaluation import EvalConfig
from retool.config.sampling import SamplingConfig
from retool.config.sandbox import SandboxConfig
from retool.config.synth import SynthConfig

DecayRate = Annotated[float, Field(ge=0.0, lt=1.0)]


class LoraConfig(Section):
    """Low-rank adapters (Hu et al. 2021, LoRA): two thin matrices beside a layer's own, which stays as it is."""

    rank: int = Field(0, ge=0)
    """Rank of their product; 0: there are none, and all weights are trained."""

    alpha: float = Field(32.0, gt=0.0)
    """Their product counts alpha / rank times."""

    targets: str | tuple[str, ...] = "all-linear"
    """Layers that get them, by the ends of their names, such as [q_proj, v_proj]; `all-linear`: all but the head."""

    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of their inputs that is left out in training. In RL the learner then disagrees with the sampler."""


class ModelConfig(Section):
    path: str | None = None
    """A Hugging Face id or a folder; None builds `architecture` with random weights and a tokenizer of its own."""

    architecture: dict[str, Any] | None = None
    """For a model from scratch: a transformers config with `model_type`; the vocabulary's size is filled in."""

    vocabulary: int = Field(512, ge=300)
    """Size of the byte-level vocabulary that is learned from the cold-start traces, for a model from scratch."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Data type of the weights, as they compute and sample. They learn in float32 in any case."""

    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, …; `auto` takes a GPU if there is one."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off: such a model is refused."""

    lora: LoraConfig = LoraConfig()


class ProtocolConfig(Section):
    name: Literal["tags", "native", "fenced", "text"] = "tags"
    """`tags`: <code> and <interpreter>, as in the paper; `native`: the model's own tool calls; `fenced`: ```python and
    ```output blocks; `text`: no interpreter (the baseline)."""

    instruction: str | None = None
    """What the prompt says before the question; None is the protocol's own text, "" is nothing."""

    fence: bool = False
    """`tags` only: put the code into a ```python fence inside <code>, as in the paper's prompt."""

    result_tokens: int = Field(512, gt=16)
    """Longest result that is spliced in; of a longer one the head and the tail are kept."""


class RolloutConfig(Section):
    max_tokens: int = Field(1024, gt=0)
    """Budget of one response in tokens, both authors together."""

    max_turn_tokens: int | None = Field(None, gt=0)
    """Tokens the model may write before a call or the end of its turn; null: no limit of its own."""

    max_calls: int = Field(8, ge=0)
    """Calls one response may make; one more ends it."""

    max_seconds: float | None = Field(None, gt=0.0)
    """Seconds one response may take from its first token on, waiting for the interpreter included; null: no limit."""

    oversample: float = Field(1.0, ge=1.0)
    """RL starts this many times `rl.samples` responses of a problem, keeps the first to be complete and cancels the
    rest. Above 1 short responses are preferred, which biases what is learned from."""

    rows: int = Field(64, gt=0)
    """Trajectories that decode at the same time."""

    stateful: bool = False
    """Let the code of a call find the variables of the calls before it in the same response, as in a notebook; a call
    that fails changes nothing. Off, as in the paper: each call is a program of its own."""

    echo: bool = False
    """Show the model the value of a last expression, as a notebook does, and not only what is printed."""

    cache_mib: int | None = Field(None, gt=0)
    """Memory of the KV cache. With room for more than `rows`, responses whose code runs keep their place while others
    decode; with less, fewer decode at a time. null: half of what is free, in deterministic mode exactly for `rows`."""

    prefill_chunk: int = Field(128, gt=0)
    """Tokens that one prefill step computes at most."""

    deterministic: bool = False
    """The same seed, machine and thread count give the same bytes, whatever the tools' timing."""

    timeline: bool = False
    """Write who did what when, as timeline/step-N.json in the run's folder; ui.perfetto.dev shows it."""

    @model_validator(mode="after")
    def _no_clock_decides_in_deterministic_mode(self) -> Self:
        """Raises ValueError with a sentence for the user, as all of this config's own checks do."""
        clocked = {"max_seconds": self.max_seconds is not None, "oversample": self.oversample > 1.0}
        for name, value in clocked.items():
            if self.deterministic and value:
                raise ValueError(
                    f"rollout.{name}={getattr(self, name)} lets the clock decide what is learned from, which "
                    f"rollout.deterministic=true rules out; set rollout.deterministic=false or leave rollout.{name} out"
                )
        return self


class SamplerConfig(Section):
    backend: Literal["engine", "vllm"] = "engine"
    """What samples: `engine`, in this process and from the weights that are trained; `vllm`, one or more servers."""

    urls: tuple[str, ...] = ()
    """vLLM servers that run already, such as [http://127.0.0.1:8000]; docs/vllm.md says how they must be started."""

    vllm_python: str | None = None
    """The python of an environment with vLLM, to start a server with; null: use those at `urls`."""

    vllm_args: tuple[str, ...] = ()
    """More arguments for the server that is started, such as [--enforce-eager]."""

    weights_folder: str | None = None
    """Where weights are handed over: a folder that servers see under the same path; null: one for temporary files."""


class DataConfig(Section):
    train: str = "puzzles"
    """Problems to train on: a JSONL or Parquet file, a named set, a Hugging Face data set, or `puzzles` (generated)."""

    heldout: str = "puzzles"
    """Problems to evaluate on, which must not occur in `train`; several sets with commas between them."""

    mapping: str | None = None
    """Which columns are the problem, the answer and the solution: a name (`gsm8k`, …) or `problem=…,answer=…`."""

    limit: int | None = Field(None, gt=0)
    """Use the first N problems of `train` only."""

    heldout_limit: int | None = Field(None, gt=0)
    """Use the first N problems of `heldout` only; of several sets, the first N of each."""

    puzzles_train: int = Field(6000, gt=0)
    """Number of generated training problems."""

    puzzles_heldout: int = Field(220, gt=0)
    """Number of generated held-out problems."""


class OptimizerConfig(Section):
    """Settings that SFT and RL share."""

    optimizer: Literal["adamw", "muon"] = "adamw"
    """`adamw`, as in the paper; `muon` for the matrices of the trunk learns from scratch in fewer steps."""

    learning_rate: float = Field(1e-6, gt=0.0)
    """Peak learning rate."""

    warmup_steps: int = Field(0, ge=0)
    """Optimizer steps of linear warm-up."""

    decay: Literal["constant", "linear", "cosine"] = "constant"
    """Course of the learning rate after the warm-up, down to 0 at the last step."""

    weight_decay: float = Field(0.0, ge=0.0)
    """Decoupled weight decay."""

    betas: tuple[DecayRate, DecayRate] = (0.9, 0.95)
    """AdamW's decay rates of the two moments."""

    max_grad_norm: float = Field(1.0, gt=0.0)
    """Gradients are scaled down to this norm."""


class SftConfig(OptimizerConfig):
    learning_rate: float = Field(1e-5, gt=0.0)
    """Peak learning rate."""

    steps: int | None = Field(None, gt=0)
    """Optimizer steps; None: as many as `epochs` needs."""

    epochs: int = Field(2, gt=0)
    """Passes over the traces if `steps` is not given. The paper takes 2."""

    batch_size: int = Field(32, gt=0)
    """Traces an optimizer step."""

    micro_batch_tokens: int = Field(8192, gt=0)
    """Tokens of one forward and backward pass."""

    save_every: int = Field(50, gt=0)
    """Steps between checkpoints."""


class CriticConfig(Section):
    """Of `algorithm: ppo`, and whatever else compares with a critic (`advantage: gae`)."""

    trunk: Literal["shared", "own"] = "shared"
    """`shared`: a head on the policy's trunk; `own`: a model of its own, at first a copy of the policy's trunk."""

    learning_rate: float = Field(1e-3, gt=0.0)
    """Peak learning rate of the head, which starts from nothing; its schedule is the policy's."""

    trunk_learning_rate: float = Field(1e-5, gt=0.0)
    """Peak learning rate of an own trunk."""

    warmup_steps: int = Field(0, ge=0)
    """First RL steps in which only the critic learns: from the rollouts of a policy that stays as it is (VAPO)."""

    loss_coefficient: float = Field(0.5, ge=0.0)
    """Weight of the critic's loss in the sum."""

    clip: float | None = Field(0.2, gt=0.0)
    """The prediction may move this far from the one at rollout time; null: as far as it likes."""


class RlConfig(OptimizerConfig):
    steps: int = Field(100, gt=0)
    """RL steps: sample, grade, compare, update."""

    prompts: int = Field(32, gt=0)
    """Problems a step."""

    samples: int = Field(8, gt=0)
    """Responses per problem."""

    algorithm: Literal[
        "ppo", "grpo", "dapo", "dr_grpo", "rloo", "reinforce_pp", "reinforce_pp_baseline", "gspo", "cispo"
    ] = "ppo"
    """Sets `advantage`, `loss`, `aggregation`, `filters` and `masks` where they are null (docs/learner.md)."""

    advantage: Choice | None = None
    """What a response is compared with: `gae` (a critic), `grpo`, `dr_grpo`, `rloo`, `reinforce_pp`, …"""

    loss: Choice | None = None
    """Loss per token: `ppo_clip`, `gspo`, `cispo`, `reinforce`; with settings: `{ppo_clip: {clip_high: 0.28}}`."""

    aggregation: Choice | None = None
    """What a token weighs: `token_mean`, `sequence_mean`, `constant`."""

    filters: Choices | None = None
    """What is dropped before responses are compared: `equal_rewards`, `pass_rate`, `resample_on_correct`."""

    masks: Choices | None = None
    """What is compared with the others, but left out of the loss: `truncated`, `void_turns`."""

    reward: Choices = "outcome"
    """`outcome` (±1, as in the paper), `tool_bonus`, …; several are added up, such as `[outcome, overlong]`."""

    correction: Choice | None = None
    """Weights for tokens that were drawn from another policy than the learner's: `truncated`, `masked`."""

    kl: Choice | None = None
    """Keeps the policy near the one it started as: `{k2: {coefficient: 0.01}}`. The paper takes none."""

    old_logprobs: Literal["sampler", "learner"] = "sampler"
    """The centre of the clip: as the sampler recorded them, or computed anew before the first update (decoupled PPO,
    with `correction`)."""

    whiten: bool | None = None
    """Shift and scale the advantages of a batch to mean 0 and deviation 1; null: with a critic only."""

    entropy_coefficient: float = Field(0.0, ge=0.0)
    """Weight of the entropy bonus."""

    epochs: int = Field(1, gt=0)
    """Passes over the trajectories of a step."""

    mini_batches: int = Field(4, gt=0)
    """Optimizer steps a pass."""

    refill: int = Field(0, ge=0)
    """With the filter `equal_rewards`: how many more rounds of new problems a step may take to have `prompts` groups
    that differ (dynamic sampling)."""

    plugins: tuple[str, ...] = ()
    """Python modules that are imported first and register losses, rewards, … of their own."""

    micro_batch_tokens: int = Field(8192, gt=0)
    """Tokens of one forward and backward pass."""

    save_every: int = Field(10, gt=0)
    """Steps between checkpoints."""

    keep_states: int = Field(2, gt=0)
    """Newest checkpoints that keep what a resume needs (optimizer, critic); older ones keep the weights only."""

    keep_checkpoints: int | None = Field(None, gt=0)
    """Newest checkpoints that stay, and with them the best one of `eval_every`; null: all."""

    eval_every: int = Field(0, ge=0)
    """Steps between evaluations on the first `eval_problems` held-out problems; 0: never. The best checkpoint is saved
    at once, whatever `save_every`, and named in checkpoints/best.json."""

    eval_problems: int = Field(64, gt=0)
    """Held-out problems of such an evaluation, one sample each."""

    critic: CriticConfig = CriticConfig()


class Config(Section):
    """The whole of it: what `config.yaml` in a run's folder holds, resolved."""

    seed: int = Field(0, ge=0)
    """Everything random follows from it."""

    threads: int = Field(0, ge=0)
    """CPU threads for torch; 0 leaves torch's own choice."""

    model: ModelConfig = ModelConfig()
    protocol: ProtocolConfig = ProtocolConfig()
    sampling: SamplingConfig = SamplingConfig()
    rollout: RolloutConfig = RolloutConfig()
    sampler: SamplerConfig = SamplerConfig()
    sandbox: SandboxConfig = SandboxConfig()
    data: DataConfig = DataConfig()
    synth: SynthConfig = SynthConfig()
    sft: SftConfig = SftConfig()
    rl: RlConfig = RlConfig()
    eval: EvalConfig = EvalConfig()
    analyze: AnalysisConfig = AnalysisConfig()

    cluster: ClusterConfig | None = None
    """A run over several machines; null: in this process."""

    log_to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Where `metrics.jsonl` and `timings.jsonl` are shown as well, such as [tensorboard]."""

    @model_validator(mode="after")
    def _correct_what_older_weights_drew(self) -> Self:
        """Where trajectories are of weights before the learner's, decoupled PPO with truncated importance weights is
        what a config means that says nothing of either."""
        if (
            self.cluster is None
            or self.cluster.mode == "sync"
            or {"old_logprobs", "correction"} & self.rl.model_fields_set
        ):
            return self
        rl = self.rl.model_copy(update={"old_logprobs": "learner", "correction": "truncated"})
        return self.model_copy(update={"rl": rl})
