"""Runs what is missing, one after the other, each by the front door in a process of its own."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cuttlefish.errors import EXIT_AT_ONCE, EXIT_BUSY, EXIT_SAVED
from cuttlefish.plan.planned_run import PlannedRun
from cuttlefish.plan.spec import OrderBlock
from cuttlefish.plan.state import Known, State, state_of
from cuttlefish.plan.time_limit import GRACE, TimeLimit
from cuttlefish.process.child import run_child
from cuttlefish.process.signals import StopSignals

STOPPED = (EXIT_SAVED, EXIT_AT_ONCE)


class Attempt(NamedTuple):
    """A run, its state before, and the exit code of the front door (0 where nothing was started)."""

    run: PlannedRun
    state: State
    code: int


def execute(
    runs: Iterable[PlannedRun],
    known: Known,
    start: Callable[[PlannedRun, float], int],
    limit: TimeLimit | None = None,
) -> Iterator[Attempt]:
    """Make the runs that are missing, in the order given, as far as they fit into the limit.

    Ends early where a run was asked to stop.

    Args:
        start: Trains a run for so many seconds at most and returns its exit code.
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
    """Each run key once: the runs that the order names, then the others, those whose size is another run's
    last."""
    places = {
        place: number for number, place in enumerate(place for block in order for place in block.places())
    }
    return sorted(
        each_once(runs),
        key=lambda run: (
            places.get((run.table, run.seed, run.data, run.model, run.row), len(places)),
            run.waits_for is not None,
        ),
    )


def each_once(runs: Iterable[PlannedRun]) -> list[PlannedRun]:
    """A run that several rows show, where it is first."""
    unique: dict[str, PlannedRun] = {}
    for run in runs:
        unique.setdefault(run.run_key, run)
    return list(unique.values())


def by_front_door(root: Path) -> Callable[[PlannedRun, float], int]:
    """A `start` that types the run's words behind `python run.py`.

    A request to stop is handed on, and ends the list whatever has become of the run. After `seconds` the run
    is asked to save its state, and killed if it does not.
    """

    def start(run: PlannedRun, seconds: float) -> int:
        with StopSignals() as stop:
            code = run_child(
                [sys.executable, "run.py", *run.words], stop, root, None, seconds, _grace(seconds)
            )
        return EXIT_SAVED if stop.requested else code

    return start


def _grace(seconds: float) -> float:
    """A limit also limits how long saving may take; without one nothing is ever killed."""
    return math.inf if seconds == math.inf else 0.7 * GRACE


def exit_code_of(codes: Iterable[int]) -> int:
    """The worst: a stop, then a crash or bad input, then a run that another process has."""
    order = [0, EXIT_BUSY, 2, 1, *STOPPED]
    return max(codes, key=lambda code: order.index(code) if code in order else order.index(1), default=0)
