"""What listens to a run. Loggers observe: none of them can stop, slow or steer training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuttlefish.errors import CuttlefishError
from cuttlefish.record.fields import Record

log = logging.getLogger("cuttlefish.loggers")


@dataclass(frozen=True)
class RunInfo:
    """What a logger is told at the start.

    Attributes:
        config: Resolved, as plain containers.
        resumed_from: Trained epochs that the checkpoint holds and whose rows stay; 0 for a fresh run.
    """

    folder: Path
    config: dict[str, Any]
    run_key: str
    resumed_from: int = 0


class Logger:
    """A listener whose methods do nothing; loggers override some. Only the first process has loggers."""

    def start(self, run: RunInfo) -> None: ...

    def phase(self, name: str, epochs: int) -> None:
        """Called when a phase of at most `epochs` epochs begins."""

    def epoch_begin(self, steps: int, label: str) -> None: ...

    def step(self) -> None:
        """Called after every optimizer step: must cost microseconds."""

    def epoch(self, row: dict[str, Any]) -> None:
        """Called with a row of `epochs.jsonl`."""

    def ranks(self, rows: list[dict[str, Any]]) -> None:
        """Called with rows of `ranks.csv`: the ranks of all tracked layers after `epoch` trained epochs."""

    def profile(self, profile: dict[str, Any]) -> None:
        """Called with what `profile.json` holds."""

    def message(self, text: str) -> None:
        """Called with what a person wants to know: the switch and its reason, a resumed run."""

    def settle(self) -> str | None:
        """Return what of the run's own log is not on the disk, if any. Called before a checkpoint."""

    def finish(self, record: Record) -> None:
        """Called when the run is over, well or badly; `record` says which."""

    def close(self) -> None:
        """Let go of terminals, files and connections. Always called, without `finish` too; maybe twice."""


def _of_each(event: str) -> Callable[..., None]:
    def call(self: Loggers, *arguments: Any) -> None:
        for logger in list(self):
            try:
                getattr(logger, event)(*arguments)
            except Exception as error:
                self._drop(logger, event, error)

    return call


class Loggers(list[Logger]):
    """Calls each logger in order. One that raises is dropped with a warning, and the run goes on.

    A context manager: leaving it closes them all.

    Attributes:
        dropped: Which loggers were dropped, and why.
    """

    def __init__(self, loggers: Iterable[Logger] = ()):
        super().__init__(loggers)
        self.dropped: list[str] = []

    start, phase, epoch_begin = _of_each("start"), _of_each("phase"), _of_each("epoch_begin")
    step, epoch, ranks = _of_each("step"), _of_each("epoch"), _of_each("ranks")
    profile, message = _of_each("profile"), _of_each("message")
    finish, close = _of_each("finish"), _of_each("close")

    def settle(self) -> None:
        """Raise CuttlefishError if rows are not on the disk, which a checkpoint would lose for good."""
        for missing in filter(None, [logger.settle() for logger in self]):
            raise CuttlefishError(
                f"{missing}; the last checkpoint is intact, so make room and run the same command again"
            )

    def __enter__(self) -> Loggers:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _drop(self, logger: Logger, event: str, error: Exception) -> None:
        self.remove(logger)
        name, kind = type(logger).__name__, type(error).__name__
        reason = " ".join(str(error).split()) or "no reason given"
        self.dropped.append(f"{name} at {event} ({kind}: {reason})")
        log.warning("%s stopped at %s (%s: %s); the run goes on without it.", name, event, kind, reason)
        try:
            logger.close()
        except Exception:
            log.debug("%s could not be closed.", name, exc_info=True)
