"""The current state of a planned run."""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cuttlefish.errors import CuttlefishError
from cuttlefish.evidence.records import Evidence
from cuttlefish.planning.planned_run import PlannedRun
from cuttlefish.record.folder import LOCK, RECORD
from cuttlefish.record.problems import STATUSES
from cuttlefish.record.record import read_record


class State(StrEnum):
    """State of a planned run. WAITS: for the finished run whose size it takes."""

    FINISHED = "finished"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    WAITS = "waits"
    DATA_ABSENT = "data absent"
    MISSING = "missing"
    NO_TIME = "does not fit into the time left"

    @property
    def can_run(self) -> bool:
        """Whether it can be started now: missing, interrupted and failed runs can."""
        return self in (State.MISSING, State.INTERRUPTED, State.FAILED)


@dataclass(frozen=True)
class Known:
    """Finished records by (run key, precision), and folders of other runs. root: base of relative folders."""

    finished: Mapping[tuple[str, str], Evidence]
    root: Path

    @classmethod
    def of(cls, runs: Iterable[Evidence], root: Path) -> Known:
        return cls({(run.record.run_key, run.record.precision): run for run in runs if run.finished}, root)


def state_of(run: PlannedRun, known: Known) -> State:
    """Return the state of a run from the finished records and its folder; foreign files do not count."""
    if (run.run_key, run.precision) in known.finished:
        return State.FINISHED
    here = folder_state(known.root / run.folder, run.run_key)
    if here in (State.FINISHED, State.RUNNING):
        return here
    if run.waits_for and not _can_be_matched(run, known):
        return State.WAITS
    return here or (State.MISSING if run.data_there else State.DATA_ABSENT)


def state_words(run: PlannedRun, state: State) -> str:
    """Return the state in words, with the run it waits for: `waits for Cuttlefish, seed 3`."""
    return f"{state} for {run.waits_for_label}, seed {run.seed}" if state is State.WAITS else str(state)


def folder_state(folder: Path, key: str) -> State | None:
    """Return the state of the run with that key in a run folder; None if nothing has begun."""
    if _is_held(folder / LOCK):
        return State.RUNNING
    if (folder / RECORD).exists():
        try:
            record = read_record(folder)
        except CuttlefishError:
            return State.INTERRUPTED
        if record.run_key != key:
            return None
        return State(record.status) if record.status in STATUSES else State.INTERRUPTED
    return State.INTERRUPTED if folder.is_dir() and any(folder.iterdir()) else None


def _can_be_matched(run: PlannedRun, known: Known) -> bool:
    recorded = any(key == run.waits_for for key, _ in known.finished)
    return recorded or folder_state(known.root / run.waits_in, run.waits_for) is State.FINISHED


def _is_held(lock: Path) -> bool:
    """Return whether a live process on this machine holds the run."""
    try:
        with open(lock, "rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
