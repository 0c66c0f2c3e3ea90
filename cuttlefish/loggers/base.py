"""What listens to a run. Loggers observe: none of them can stop, slow or steer training."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuttlefish.errors import CuttlefishError
from cuttlefish.record.fields import Record

log = logging.getLogger("cuttlefish.loggers")


@dataclass(frozen=True)
class RunInfo:
    """What a logger is told at the start.

    resumed_from: trained epochs that the checkpoint holds and whose rows stay valid; 0 for a fresh run.
    """

    folder: Path
    config: dict[str, Any]
    """Resolved, as plain containers."""
    run_key: str
    resumed_from: int = 0


class Logger:
    """A listener that ignores everything; loggers override what they care about. Only the first process has loggers."""

    def start(self, run: RunInfo) -> None: ...

    def phase(self, name: str, epochs: int) -> None:
        """A phase of at most so many epochs begins."""

    def epoch_begin(self, steps: int, label: str) -> None: ...

    def step(self) -> None:
        """After every optimizer step: must cost microseconds."""

    def epoch(self, row: dict[str, Any]) -> None:
        """A row of `epochs.jsonl`."""

    def ranks(self, rows: list[dict[str, Any]]) -> None:
        """Rows of `ranks.csv`: the ranks of all tracked layers after `epoch` trained epochs."""

    def profile(self, profile: dict[str, Any]) -> None:
        """What `profile.json` holds."""

    def message(self, text: str) -> None:
        """Something a person wants to know: the switch and its reason, a resumed run."""

    def settle(self) -> str | None:
        """Before a checkpoint: what of the run's own log is still not on the disk, in a sentence, or None."""

    def finish(self, record: Record) -> None:
        """The run is over, well or badly; `record` says which."""

    def close(self) -> None:
        """Let go of terminals, files and connections. Called in every case, also without `finish`; may be called twice."""


class Loggers(list[Logger]):
    """Fans each call out in order. A logger that raises is dropped with one warning, and the run goes on; `dropped` says which did.

    A context manager: leaving it closes them all.
    """

    def __init__(self, loggers: Iterable[Logger] = ()):
        super().__init__(loggers)
        self.dropped: list[str] = []

    def start(self, run: RunInfo) -> None:
        self._each("start", run)

    def phase(self, name: str, epochs: int) -> None:
        self._each("phase", name, epochs)

    def epoch_begin(self, steps: int, label: str) -> None:
        self._each("epoch_begin", steps, label)

    def step(self) -> None:
        self._each("step")

    def epoch(self, row: dict[str, Any]) -> None:
        self._each("epoch", row)

    def ranks(self, rows: list[dict[str, Any]]) -> None:
        self._each("ranks", rows)

    def profile(self, profile: dict[str, Any]) -> None:
        self._each("profile", profile)

    def message(self, text: str) -> None:
        self._each("message", text)

    def settle(self) -> None:
        """Raises CuttlefishError if rows of the run are missing on the disk: a checkpoint from after them would lose them for good."""
        for logger in self:
            missing = logger.settle()
            if missing:
                raise CuttlefishError(
                    f"{missing}; the last checkpoint is intact, so make room and run the same command again"
                )

    def finish(self, record: Record) -> None:
        self._each("finish", record)

    def close(self) -> None:
        self._each("close")

    def __enter__(self) -> Loggers:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _each(self, event: str, *arguments: Any) -> None:
        for logger in list(self):
            try:
                getattr(logger, event)(*arguments)
            except Exception as error:
                self._drop(logger, event, error)

    def _drop(self, logger: Logger, event: str, error: Exception) -> None:
        self.remove(logger)
        reason = " ".join(str(error).split()) or "no reason given"
        self.dropped.append(f"{type(logger).__name__} at {event} ({type(error).__name__}: {reason})")
        log.warning(
            "%s stopped at %s (%s: %s); the run goes on without it.",
            type(logger).__name__,
            event,
            type(error).__name__,
            reason,
        )
        try:
            logger.close()
        except Exception:
            log.debug("%s could not be closed.", type(logger).__name__, exc_info=True)
