"""Interface of loggers. They only observe: none can stop, slow or steer training."""

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
    """Facts about a run for loggers at its start.

    Attributes:
        config: The resolved config in plain containers.
        resumed_from: Trained epochs in the checkpoint, whose rows are kept; 0 for a new run.
        within: How much of the next epoch it has trained, as a fraction.
        measured: How many times it has measured the ranks; 0 if that is not in this folder's rows.
    """

    folder: Path
    config: dict[str, Any]
    run_key: str
    resumed_from: int = 0
    within: float = 0.0
    measured: int = 0


class Logger:
    """Base class whose methods do nothing; loggers override some. Only the first process has loggers."""

    def start(self, run: RunInfo) -> None: ...

    def phase(self, name: str, epochs: int) -> None:
        """Handle the start of a phase of at most `epochs` epochs."""

    def epoch_begin(self, steps: int, label: str) -> None: ...

    def step(self) -> None:
        """Handle an optimizer step. Must take only microseconds."""

    def epoch(self, row: dict[str, Any]) -> None:
        """Log a row of `epochs.jsonl`."""

    def ranks(self, rows: list[dict[str, Any]]) -> None:
        """Log rows of `ranks.csv`: ranks of all tracked layers after `epoch` trained epochs."""

    def profile(self, profile: dict[str, Any]) -> None:
        """Log the content of `profile.json`."""

    def message(self, text: str) -> None:
        """Log a message for the user, such as the switch and its reason, or a resume."""

    def settle(self) -> str | None:
        """Return an error if rows of the run's log are not on disk. Called before a checkpoint."""

    def finish(self, record: Record) -> None:
        """Handle the end of the run; `record.status` is finished, failed or interrupted."""

    def close(self) -> None:
        """Release terminals, files and connections. Always called, also without `finish`, possibly twice."""


def _of_each(event: str) -> Callable[..., None]:
    def call(self: Loggers, *arguments: Any) -> None:
        for logger in list(self):
            try:
                getattr(logger, event)(*arguments)
            except Exception as error:
                self._drop(logger, event, error)

    return call


class Loggers(list[Logger]):
    """Call all loggers in order. A logger that raises is dropped with a warning, and the run goes on.

    A context manager that closes all loggers on exit.

    Attributes:
        dropped: Names of dropped loggers, with reasons.
    """

    def __init__(self, loggers: Iterable[Logger] = ()):
        super().__init__(loggers)
        self.dropped: list[str] = []

    start, phase, epoch_begin = _of_each("start"), _of_each("phase"), _of_each("epoch_begin")
    step, epoch, ranks = _of_each("step"), _of_each("epoch"), _of_each("ranks")
    profile, message = _of_each("profile"), _of_each("message")
    finish, close = _of_each("finish"), _of_each("close")

    def settle(self) -> None:
        """Raise CuttlefishError if rows are not on disk: a checkpoint would lose them for good."""
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
