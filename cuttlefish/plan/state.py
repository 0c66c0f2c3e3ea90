"""What has become of a planned run so far."""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cuttlefish.errors import CuttlefishError
from cuttlefish.evidence.records import Evidence
from cuttlefish.plan.planned_run import PlannedRun
from cuttlefish.record.folder import LOCK, RECORD
from cuttlefish.record.record import read_record

FINISHED, RUNNING, MISSING, DATA_ABSENT = "finished", "running", "missing", "data absent"


@dataclass(frozen=True)
class Known:
    """Finished records by (run key, precision), and where runs lie that are not records yet. root: what run folders are relative to."""

    finished: Mapping[tuple[str, str], Evidence]
    root: Path

    @classmethod
    def of(cls, runs: Iterable[Evidence], root: Path) -> Known:
        return cls(
            {(run.record["run_key"], run.record["precision"]): run for run in runs if run.finished}, root
        )


def state_of(run: PlannedRun, known: Known) -> str:
    """finished, running, interrupted, failed, waits for …, data absent or missing. In the folder, only what this suite wrote counts."""
    if (run.run_key, run.precision) in known.finished:
        return FINISHED
    here = folder_state(known.root / run.folder, run.run_key)
    if here in (FINISHED, RUNNING):
        return here
    if run.waits_for and not _can_be_matched(run, known):
        return f"waits for {run.waits_for_label}, seed {run.seed}"
    return here or (MISSING if run.data_there else DATA_ABSENT)


def folder_state(folder: Path, key: str) -> str | None:
    """What a run folder says; None where nothing has begun."""
    if _is_held(folder / LOCK):
        return RUNNING
    if (folder / RECORD).exists():
        try:
            record = read_record(folder)
        except CuttlefishError:
            return "interrupted"
        return str(record.get("status")) if record.get("run_key") == key else None
    return "interrupted" if folder.is_dir() and any(folder.iterdir()) else None


def _can_be_matched(run: PlannedRun, known: Known) -> bool:
    recorded = any(key == run.waits_for for key, _ in known.finished)
    return recorded or folder_state(known.root / run.waits_in, run.waits_for) == FINISHED


def _is_held(lock: Path) -> bool:
    """Whether a live process of this machine holds it."""
    try:
        with open(lock, "rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
