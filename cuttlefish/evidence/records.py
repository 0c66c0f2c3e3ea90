"""Load the records that count: every `record.json` under a folder, with a reason for each one left out.

Tables, figures, claims and the report all load records here, so none of them meets a damaged record or drops
one silently.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cuttlefish.config.identity import NOT_IN_KEY
from cuttlefish.display.format import counted
from cuttlefish.errors import CuttlefishError
from cuttlefish.record.fields import SCHEMA, Record
from cuttlefish.record.folder import RECORD
from cuttlefish.record.problems import problems_of
from cuttlefish.record.record import read_fields, value_of

CELL = ("model", "data", "method", "preset", "recipe", "epochs", "scale")
OUTCOME = (
    "status", "accuracy_final", "accuracy_best", "metrics", "loss_final", "params_total", "switch_epoch",
    "ranks", "compute_seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Evidence:
    """A valid record and the file it was read from."""

    path: Path
    record: Record

    @property
    def finished(self) -> bool:
        return self.record.status == "finished"

    @cached_property
    def cell(self) -> tuple[Any, ...]:
        """The values of CELL: what identifies the run except its seed."""
        return tuple(getattr(self.record, name) for name in CELL)

    @cached_property
    def hardware(self) -> str:
        """Device, precision, threads, processes and compilation. Times compare only on equal hardware."""
        record = self.record
        words = [record.device, record.precision, *threads_words(record.threads)]
        words += [f"{record.world_size} processes"] if record.world_size > 1 else []
        words += ["compiled"] if value_of(record, "config.trainer.compile") is True else []
        return " · ".join(words)

    @cached_property
    def timed_on(self) -> tuple[str, str]:
        """The hardware and torch's minor version, which two runs must share for a speed-up."""
        return self.hardware, ".".join(str((self.record.packages or {}).get("torch")).split(".")[:2])


def threads_words(threads: int | None) -> list[str]:
    return [counted(threads, "thread")] if threads else []


def by_start(runs: Iterable[Evidence]) -> list[Evidence]:
    """Sort runs by start time, the order in which repeats count, regardless of their results."""
    return sorted(runs, key=lambda run: (run.record.started, str(run.path)))


@dataclass(frozen=True)
class LeftOut:
    """A record that does not count, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Collection:
    """The result of `load_evidence`, in the order of paths."""

    runs: list[Evidence]
    left_out: list[LeftOut]

    @property
    def finished(self) -> list[Evidence]:
        return [run for run in self.runs if run.finished]


def load_evidence(folder: str | Path) -> Collection:
    """Read every record under `folder` without raising.

    Damaged, foreign or older records, copies, and records that contradict each other under one run key are
    left out, each with its reason.
    """
    runs, left_out = [], []
    # Use a pattern: a plain name skips broken links.
    for path in sorted(Path(folder).rglob(f"{RECORD}*")):
        if path.name != RECORD:
            continue
        read = _read(path)
        (runs if isinstance(read, Evidence) else left_out).append(read)
    for refuse in (_copies, _conflicts):
        refused = refuse(runs)
        left_out += [LeftOut(path, reason) for path, reason in refused.items()]
        runs = [run for run in runs if run.path not in refused]
    return Collection(runs, sorted(left_out, key=lambda item: item.path))


def _read(path: Path) -> Evidence | LeftOut:
    try:
        values = read_fields(path)
        problems = problems_of(values)
    except (CuttlefishError, ValueError, TypeError, RecursionError) as error:
        return LeftOut(path, f"damaged: {error}")
    schema = values.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool):
        return LeftOut(path, "foreign: it has no schema of this suite")
    if schema != SCHEMA:
        age = "an older" if schema < SCHEMA else "a newer"
        return LeftOut(path, f"of {age} schema ({schema}; this suite reads {SCHEMA})")
    return LeftOut(path, f"unsound: {problems[0]}") if problems else Evidence(path, Record(**values))


def _copies(runs: Iterable[Evidence]) -> dict[Path, str]:
    """Find all but the first of equal records, so that a run counts once however often it was copied."""
    return {
        other.path: f"a copy of {first.path}"
        for group in _grouped(runs, lambda record: (record.run_key, record.started)).values()
        for first in group[:1]
        for other in group[1:]
        if other.record == first.record
    }


def _conflicts(runs: Iterable[Evidence]) -> dict[Path, str]:
    """Find contradictory records: one run key for different cells, or one start with different outcomes.

    A later start of the same key is a repeat, not a conflict.
    """
    refused: dict[Path, str] = {}
    for key, group in _grouped(runs, lambda record: record.run_key).items():
        if unlike := _unlike([_identity(run.record) for run in group]):
            reason = f"in conflict: run key {key} stands for unlike runs ({', '.join(unlike)})"
            refused |= {run.path: reason for run in group}
    for (key, started), group in _grouped(runs, lambda record: (record.run_key, record.started)).items():
        if len({repr([getattr(run.record, name) for name in OUTCOME]) for run in group}) > 1:
            reason = f"in conflict: unlike outcomes of run {key} started {started}"
            refused |= {run.path: reason for run in group}
    return refused


def _identity(record: Record) -> dict[str, Any]:
    """Return the values that one run key must determine, by path.

    Preset and scale are labels outside the key: two names may stand for one run.
    """
    names = ("model", "data", "method", "seed", "epochs", "data_digest", "params_full")
    own = {name: getattr(record, name) for name in names}
    known = {name: value for name, value in own.items() if value is not None}  # not all, if it failed early
    return known | dict(_settings(record.config or {}))


def _settings(values: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        path = f"{where}{name}"
        if path not in NOT_IN_KEY:
            yield from _settings(value, f"{path}.") if isinstance(value, Mapping) else [(path, value)]


def _unlike(identities: Sequence[Mapping[str, Any]]) -> list[str]:
    """Find the paths with several values. A missing value may be a default that another record spells out."""
    first: dict[str, Any] = {}
    for identity in identities:
        first = dict(identity) | first
    return sorted({path for one in identities for path, value in one.items() if value != first[path]})


def _grouped(runs: Iterable[Evidence], key: Callable[[Record], Any]) -> dict[Any, list[Evidence]]:
    groups: dict[Any, list[Evidence]] = defaultdict(list)
    for run in runs:
        groups[key(run.record)].append(run)
    return groups
