"""SIGTERM, as schedulers send it: a training run saves what it has learned and ends."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from retool.errors import RetoolError
from retool.learner.distributed import ALONE, Processes


class Stopped(RetoolError):
    """SIGTERM ended a run that can go on. `saved` is the checkpoint it goes on from, if this process has one."""

    exit_code = 143  # what a shell reports for SIGTERM

    def __init__(self, saved: Path | None):
        what = f"what was learned is saved in {saved}" if saved else "there was nothing new to save"
        super().__init__(f"ended by SIGTERM, {what}; run the same command again to go on")


class Stopping:
    """While this is entered, the first SIGTERM asks the run to end; a second one ends the process at once, by the
    system's own hand: what is on the disk is whole at any moment, and sandbox and servers end when this process does.

    `requested` says whether it has been asked to. `task`, if given, is cancelled then: whatever it awaits ends as it
    does for any cancellation, and what computes without awaiting is finished first. The cancellation leaves here as
    `Stopped`. Does nothing outside the main thread, where Python has no signals.

    Several `processes` end together, whichever has been asked. A second SIGTERM means nothing to those that torchrun
    has started: a scheduler sends one, torchrun another one, and it ends what takes too long itself.
    """

    def __init__(self, task: asyncio.Task[Any] | None = None, processes: Processes = ALONE):
        self.requested = False
        self._processes = processes
        self._task, self._loop = task, task and task.get_loop()
        self._saved: Path | None = None
        self._entered = False

    def __enter__(self) -> Self:
        self._entered = True
        self._in_main_thread = threading.current_thread() is threading.main_thread()
        if self._in_main_thread:
            self._before = signal.signal(signal.SIGTERM, self._on_sigterm)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._entered = False
        if self._in_main_thread:
            signal.signal(signal.SIGTERM, self._before)
        if self._task and self.requested and kind is asyncio.CancelledError and not self._task.uncancel():
            raise Stopped(self._saved) from None

    def agreed(self) -> bool:
        """Whether any process has been asked to end; then all have been. Called by all."""
        self.requested = any(self._processes.gather(self.requested))
        return self.requested

    @contextmanager
    def saving(self, save: Callable[[], Path | None]) -> Iterator[None]:
        """`save` is called where SIGTERM has cancelled what is in here, before anything around it is closed. Of several
        processes all are cancelled in here, or none (`Processes.settle`)."""
        try:
            yield
        except asyncio.CancelledError:
            self._entered = False  # what closes now is not to be cancelled again
            if self.agreed():
                self._saved = save()
            raise

    def _on_sigterm(self, *_: object) -> None:
        self.requested = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL if self._processes.mesh is None else signal.SIG_IGN)
        if self._loop:
            self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._entered:  # the run may have ended since
            self._task.cancel()
