"""A time limit for executing missing runs: which runs still fit, and how long one may take."""

import math
import time
from collections.abc import Callable
from pathlib import Path

from cuttlefish.planning.cost import Estimates
from cuttlefish.planning.planned_run import PlannedRun
from cuttlefish.record.folder import read_epochs

GRACE = 45.0
"""Seconds before the end at which a run is asked to save its state and stop."""
SHORTEST = 20.0
"""Minimum seconds of training that justify starting a process."""


class TimeLimit:
    """A time limit that starts when it is created.

    Args:
        minutes: The total time; None for unlimited.
        estimates: How long runs take.
        root: Base of relative run folders.
        clock: Returns seconds; replaced in tests.
    """

    def __init__(
        self,
        minutes: float | None,
        estimates: Estimates,
        root: Path,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._estimates, self._root, self._clock = estimates, root, clock
        self._end = math.inf if minutes is None else clock() + 60 * minutes - GRACE

    def left(self) -> float:
        """Return the seconds until a run would be asked to stop."""
        return self._end - self._clock()

    def fits(self, run: PlannedRun) -> bool:
        """Return whether the rest of the run fits into the time left; True if its length is unknown."""
        left = self.left()
        return left == math.inf or (left >= SHORTEST and self._needs(run) <= left)

    def _needs(self, run: PlannedRun) -> float:
        """Return the seconds needed; 0 if unknown."""
        hours = self._estimates.wall_hours(run)
        if hours is None:
            return 0.0
        trained = len(read_epochs(self._root / run.folder)) / run.epochs if run.epochs else 0.0
        return 3600 * hours * max(0.0, 1 - trained)
