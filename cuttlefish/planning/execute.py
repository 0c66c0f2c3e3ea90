"""Execute the missing runs one after the other, each through run.py in its own process."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cuttlefish.errors import EXIT_AT_ONCE, EXIT_BUSY, EXIT_SAVED
from cuttlefish.planning.planned_run import PlannedRun
from cuttlefish.planning.spec import OrderBlock
from cuttlefish.planning.state import Known, State, state_of
from cuttlefish.planning.time_limit import GRACE, TimeLimit
from cuttlefish.process.child import run_child
from cuttlefish.process.signals import StopSignals

STOPPED = (EXIT_SAVED, EXIT_AT_ONCE)


class Attempt(NamedTuple):
    """A run, its previous state, and the exit code of run.py (0 if nothing was started)."""

    run: PlannedRun
    state: State
    code: int


def execute(
    runs: Iterable[PlannedRun],
    known: Known,
    start: Callable[[PlannedRun, float], int],
    limit: TimeLimit | None = None,
) -> Iterator[Attempt]:
    """Execute the missing runs in the order given, as far as they fit into the limit.

    Stop early if a run was asked to stop.

    Args:
        start: Trains a run for at most the given seconds and returns its exit code.
    """
    for run in runs:
        state, code = state_of(run, known), 0
        if state.can_run and limit is not None and not limit.fits(run):
            state = State.NO_TIME
        elif state.can_run:
            code = start(run, math.inf if limit is None else limit.left())
        yield Attempt(run, state, code)
        if code in STOPPED:
            return


def in_order_of_value(runs: Iterable[PlannedRun], order: Sequence[OrderBlock] = ()) -> list[PlannedRun]:
    """Return each run key once: ordered runs first, those that match another's size last."""
    named = [place for block in order for place in block.places()]
    places = {place: number for number, place in enumerate(named)}

    def value(run: PlannedRun) -> tuple[int, bool]:
        place = (run.table, run.seed, *run.choices("data", "model"), run.row)
        return places.get(place, len(places)), run.waits_for is not None

    return sorted(each_once(runs), key=value)


def each_once(runs: Iterable[PlannedRun]) -> list[PlannedRun]:
    """Keep only the first occurrence of a run that several rows show."""
    unique: dict[str, PlannedRun] = {}
    for run in runs:
        unique.setdefault(run.run_key, run)
    return list(unique.values())


def by_front_door(root: Path) -> Callable[[PlannedRun, float], int]:
    """Return a `start` that runs `python run.py` with the run's words.

    A stop signal is forwarded and ends the list, whatever the run's outcome. After `seconds` the run is asked
    to save its state, and killed if it does not.
    """

    def start(run: PlannedRun, seconds: float) -> int:
        command = [sys.executable, "run.py", *run.words]
        with StopSignals() as stop:
            code = run_child(command, stop, root, seconds, _grace(seconds))
        return EXIT_SAVED if stop.requested else code

    return start


def _grace(seconds: float) -> float:
    """Return the time that saving may take; without a limit nothing is ever killed."""
    return math.inf if seconds == math.inf else 0.7 * GRACE


def exit_code_of(codes: Iterable[int]) -> int:
    """Return the worst exit code: a stop, then a crash or bad input, then a run held by another process."""
    order = [0, EXIT_BUSY, 2, 1, *STOPPED]
    return max(codes, key=lambda code: order.index(code) if code in order else order.index(1), default=0)
