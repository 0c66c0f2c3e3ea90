"""Runs what is missing, one after the other, each by the front door in a process of its own."""

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from cuttlefish.errors import EXIT_AT_ONCE, EXIT_BUSY, EXIT_SAVED
from cuttlefish.plan.planned_run import PlannedRun
from cuttlefish.plan.state import DATA_ABSENT, FINISHED, RUNNING, Known, state_of
from cuttlefish.process.child import run_child
from cuttlefish.process.signals import StopSignals

STOPPED = (EXIT_SAVED, EXIT_AT_ONCE)
Outcome = tuple[PlannedRun, str, int]
"""A run, its state before, and the exit code of the front door (0 where nothing was started)."""


def execute(
    runs: Iterable[PlannedRun], known: Known, start: Callable[[PlannedRun], int]
) -> Iterator[Outcome]:
    """Every run once, in order of need; `start` trains one and returns its exit code. Ends early where one was asked to stop."""
    for run in in_order_of_need(runs):
        state = state_of(run, known)
        code = start(run) if needs_run(state) else 0
        yield run, state, code
        if code in STOPPED:
            return


def needs_run(state: str) -> bool:
    """Interrupted and failed ones go on; those that wait for another run, or for data, cannot."""
    return state not in (FINISHED, RUNNING, DATA_ABSENT) and not state.startswith("waits")


def in_order_of_need(runs: Iterable[PlannedRun]) -> list[PlannedRun]:
    """Each run key once; those whose size is another run's behind the others."""
    return sorted(each_once(runs), key=lambda run: run.waits_for is not None)


def each_once(runs: Iterable[PlannedRun]) -> list[PlannedRun]:
    """A run that several rows show, where it is first."""
    unique: dict[str, PlannedRun] = {}
    for run in runs:
        unique.setdefault(run.run_key, run)
    return list(unique.values())


def by_front_door(root: Path) -> Callable[[PlannedRun], int]:
    """A `start` that types the run's words behind `python run.py`. A request to stop is handed on, and ends the list whatever has
    become of the run."""

    def start(run: PlannedRun) -> int:
        with StopSignals() as stop:
            code = run_child([sys.executable, "run.py", *run.words], stop, root)
        return EXIT_SAVED if stop.requested else code

    return start


def exit_code_of(codes: Iterable[int]) -> int:
    """The worst: a stop, then a crash or bad input, then a run that another process has."""
    order = [0, EXIT_BUSY, 2, 1, *STOPPED]
    return max(codes, key=lambda code: order.index(code) if code in order else order.index(1), default=0)
