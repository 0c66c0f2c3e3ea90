"""When to write a checkpoint."""

import time
from collections.abc import Callable

from cuttlefish.config.schema import TrainerConfig


class Pace:
    """After every `checkpoint_epochs` epochs; `checkpoint_minutes` says what is worth a checkpoint at all: epochs shorter than
    it share one, and within a longer epoch there is one every so often.

    clock: seconds; the monotonic one, since a machine's time of day may be set back.
    """

    def __init__(self, config: TrainerConfig, clock: Callable[[], float] = time.monotonic):
        self.epochs, self.seconds, self.clock = (
            config.checkpoint_epochs,
            60 * config.checkpoint_minutes,
            clock,
        )
        self._whole = self._any = clock()

    def begin_epoch(self) -> None:
        self._any = self.clock()

    def due_after_epoch(self, trained: int) -> bool:
        return trained % self.epochs == 0 and self.clock() - self._whole >= self.seconds

    def due_within_epoch(self) -> bool:
        return self.seconds > 0 and self.clock() - self._any >= self.seconds

    def saved(self, whole: bool) -> None:
        """A checkpoint has just been written: after an epoch (whole) or within one."""
        self._any = self.clock()
        if whole:
            self._whole = self._any
