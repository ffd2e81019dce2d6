"""Where else the rows of a run are shown: TensorBoard, Weights & Biases, trackio. Each is an extra to be installed."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol

from retool.config.schema import Config
from retool.errors import UsageError
from retool.files import publish
from retool.runs import RunFolder, read_rows

_MODULES = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb", "trackio": "trackio"}
_PROJECT = "retool"


class Logger(Protocol):
    """Takes the numbers of each step; names are `metrics/…` and `timings/…`."""

    def log(self, step: int, row: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def check_loggers(names: Sequence[str]) -> None:
    """Raises UsageError if a library is missing that `log_to` names."""
    for name in names:
        _module(name)


def last_logged(run: RunFolder) -> int:
    """The last step that the loggers may have, to be asked before the run is rewound."""
    return max((row["step"] for row in read_rows(run.metrics)), default=0)


@contextmanager
def open_loggers(config: Config, run: RunFolder, first: int, logged: int) -> Iterator[list[Logger]]:
    """The loggers of `log_to` for a run that goes on after step `first` and had got to step `logged` before; none
    where another process writes."""
    with ExitStack() as stack:
        loggers: list[Logger] = []
        for name in config.log_to if run.writes else ():
            if name == "tensorboard":
                loggers.append(_TensorBoard(_module(name), run, first))
            else:
                loggers.append(_Tracker(_module(name), name, config, run, logged))
            stack.callback(loggers[-1].close)
        yield loggers


def _module(name: str) -> ModuleType:
    try:
        return import_module(_MODULES[name])
    except ModuleNotFoundError as error:
        raise UsageError(f"log_to={name} needs the library {name}: pip install 'retool[{name}]'") from error


class _TensorBoard:
    """Event files in `tensorboard/` of the run's folder. What a run before wrote of later steps is not shown."""

    def __init__(self, module: ModuleType, run: RunFolder, first: int):
        self._writer = module.SummaryWriter(str(run.path / "tensorboard"), purge_step=first + 1)

    def log(self, step: int, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # a kill loses nothing that metrics.jsonl has

    def close(self) -> None:
        self._writer.close()


class _Tracker:
    """Weights & Biases, and trackio, which has the same calls. A run that goes on is the same run there, by the name
    that is kept in the folder; steps that it has are not sent again."""

    def __init__(self, module: ModuleType, kind: str, config: Config, run: RunFolder, logged: int):
        self._logged = logged
        name = _name(run)
        identity = {"id": name} if kind == "wandb" else {}
        settings: dict[str, Any] = config.model_dump(mode="json")
        self._run = module.init(project=_PROJECT, name=name, config=settings, resume="allow", **identity)
        self._module = module

    def log(self, step: int, row: Mapping[str, float]) -> None:
        if step > self._logged:
            self._module.log(dict(row), step=step)

    def close(self) -> None:
        self._module.finish()


def _name(run: RunFolder) -> str:
    """Of the run where it is shown: its folder's, and something that another run in such a folder has not."""
    path = run.path / "shown_as.json"
    if not path.exists():
        publish(path, json.dumps({"name": f"{run.path.resolve().name}-{uuid.uuid4().hex[:8]}"}) + "\n")
    return json.loads(path.read_text(encoding="utf-8"))["name"]
