"""The minutes in which missing runs may be made: which runs still fit, and how long one may take."""

import math
import time
from collections.abc import Callable
from pathlib import Path

from cuttlefish.plan.cost import Estimates
from cuttlefish.plan.planned_run import PlannedRun
from cuttlefish.record.folder import read_epochs

GRACE = 45.0
"""Seconds before the end at which a run is asked to save its state and stop."""
SHORTEST = 20.0
"""Seconds of training that are worth starting a process for."""


class TimeLimit:
    """Counts from when it is made.

    Args:
        minutes: All the time there is; None for as much as is needed.
        estimates: How long runs take.
        root: What run folders are relative to.
        clock: Seconds, for tests.
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
        """Seconds until a run would be asked to stop."""
        return self._end - self._clock()

    def fits(self, run: PlannedRun) -> bool:
        """Whether what the run still lacks can be trained in the time left. One of unknown length fits: it is
        stopped at the end."""
        left = self.left()
        return left == math.inf or (left >= SHORTEST and self._needs(run) <= left)

    def _needs(self, run: PlannedRun) -> float:
        """Seconds; 0 where nothing tells."""
        hours = self._estimates.wall_hours(run)
        if hours is None:
            return 0.0
        trained = len(read_epochs(self._root / run.folder)) / run.epochs if run.epochs else 0.0
        return 3600 * hours * max(0.0, 1 - trained)
