"""Starting a run on a Ray cluster, or coming back to one that goes on."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayTaskError

from retool.cluster.plan import check_devices
from retool.config.schema import Config
from retool.errors import RetoolError, UsageError
from retool.stages.cluster.controller import Controller
from retool.stages.cluster.messages import Outcome, Run
from retool.stages.cluster.places import resources
from retool.types import Problem

_NAMESPACE = "retool"
_SAVE_SECONDS = 120.0  # that a run which is told to end has for it


class ClusterError(RetoolError):
    """How a run ended elsewhere."""

    def __init__(self, outcome: Outcome):
        super().__init__(outcome.error)
        self.exit_code = outcome.exit_code


def run_on_cluster(
    config: Config, training: Sequence[Problem], heldout: Sequence[Problem], out: Path, arm: str
) -> Path:
    """`run_rl` on the Ray cluster of RAY_ADDRESS, or one that runs on this machine, or one that is started here.

    Where a run with this `out` is under way there, waits for its end. Ctrl-C and SIGTERM have the run save and end; if
    this process is killed, a run on a cluster that was there before goes on without it. Returns the last checkpoint.
    """
    check(config)
    config, out = _with_absolute_paths(config), out.absolute()
    needed = resources(config)
    is_own = _connect(needed)
    try:
        _check_resources(needed)
        outcome = _wait(_controller(out), Run(config, training, heldout, out, arm))
    finally:
        if is_own:
            ray.shutdown()
    if outcome.error:
        raise ClusterError(outcome)
    return Path(outcome.checkpoint)


def name_of(out: Path) -> str:
    """What the run in the folder `out` is called on a cluster."""
    return "retool-" + hashlib.blake2b(str(out.absolute()).encode(), digest_size=8).hexdigest()


def check(config: Config) -> None:
    """Raises UsageError for what is planned for, but not run."""
    cluster = config.cluster
    if cluster.weights == "nccl":
        raise UsageError(
            "cluster.weights=nccl is planned for, but not run: set cluster.weights=shared_memory (Ray's object store), "
            "or files"
        )
    if cluster.weights == "files" and config.sampler.weights_folder is None:
        raise UsageError("cluster.weights=files needs sampler.weights_folder, a folder that all nodes see")
    if config.sampler.urls and config.sampler.backend == "engine":
        raise UsageError("sampler.urls are vLLM servers: set sampler.backend=vllm, or leave them out")
    if cluster.placement == "colocated" and config.sampler.backend == "vllm":
        raise UsageError(
            "cluster.placement=colocated is run with sampler.backend=engine only, as vLLM keeps its memory while "
            "learners compute: set cluster.placement=apart, with GPUs for both"
        )
    check_devices(config)


def _with_absolute_paths(config: Config) -> Config:
    """Other processes are in other folders."""
    model, sampler = config.model, config.sampler
    if Path(model.path).is_dir():
        model = model.model_copy(update={"path": str(Path(model.path).absolute())})
    if sampler.weights_folder:
        sampler = sampler.model_copy(update={"weights_folder": str(Path(sampler.weights_folder).absolute())})
    return config.model_copy(update={"model": model, "sampler": sampler})


def _connect(needed: Mapping[str, float]) -> bool:
    """Whether a cluster has been started for it here, with as many slots as are needed: they are no more than names."""
    if ray.is_initialized():
        return False
    settings = {"namespace": _NAMESPACE, "log_to_driver": True, "logging_level": "warning"}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address="auto", **settings)
    except ConnectionError as error:
        if address := os.environ.get("RAY_ADDRESS"):
            raise UsageError(f"no Ray cluster answers at RAY_ADDRESS={address}: {error}") from error
        slots = max(os.cpu_count() or 1, int(needed["CPU"]))
        ray.init(address="local", num_cpus=slots, include_dashboard=False, **settings)
        return True
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray takes it for itself
    return False


def _check_resources(needed: Mapping[str, float]) -> None:
    """Raises UsageError if the cluster can never have room. A node that is to come is waited for only by what runs."""
    there = ray.cluster_resources()
    for name, amount in needed.items():
        if there.get(name, 0.0) < amount:
            raise UsageError(
                f"the Ray cluster has {there.get(name, 0.0):g} {name}s, and {amount:g} are needed for "
                "cluster.learners, cluster.samplers and threads; lower them, or start more nodes (`ray start`)"
            )


def _controller(out: Path) -> ActorHandle:
    """That of the run that is under way in `out`, or a new one."""
    lasting = {"name": name_of(out), "namespace": _NAMESPACE, "get_if_exists": True, "lifetime": "detached"}
    restarted = {"max_restarts": -1, "max_task_retries": -1, "max_concurrency": 1 << 16, "num_cpus": 0}
    return ray.remote(Controller).options(**lasting, **restarted).remote()


def _wait(controller: ActorHandle, run: Run) -> Outcome:
    """How the run ended; nothing of it is left then. Raises UsageError where it goes on, with another config."""
    ended = controller.run.remote(run)
    try:
        outcome = ray.get(ended)
    except KeyboardInterrupt:
        ray.get(controller.stop.remote())
        try:
            outcome = ray.get(ended, timeout=_SAVE_SECONDS)
        except GetTimeoutError:
            ray.kill(controller)
            raise KeyboardInterrupt from None
    except RayTaskError as error:
        if isinstance(error.cause, UsageError):
            raise error.cause from None
        ray.kill(controller)
        raise
    ray.kill(controller)
    return outcome
