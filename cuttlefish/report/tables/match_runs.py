"""Match planned runs with records: the runs of each cell by hardware, one run per seed."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cuttlefish.evidence.records import Collection, Evidence, LeftOut, by_start
from cuttlefish.planning.planned_run import PlannedRun


@dataclass(frozen=True)
class CellRuns:
    """One cell of a table or figure.

    Attributes:
        planned: One run per seed.
        runs: Hardware -> the finished runs that count, ordered by seed.
        unfinished: Status of the unfinished runs.
    """

    planned: list[PlannedRun]
    runs: dict[str, list[Evidence]] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)

    @property
    def anywhere(self) -> list[Evidence]:
        """The runs that count, of all hardware."""
        return [run for own in self.runs.values() for run in own]

    @property
    def state(self) -> str:
        """The reason for an empty cell without finished runs."""
        if self.unfinished:
            return f"no finished run ({', '.join(dict.fromkeys(self.unfinished))})"
        waits = self.planned[0].waits_for_label
        return f"no run (it is to match {waits})" if waits else "no run"


def cell_runs(planned: Iterable[PlannedRun], collection: Collection) -> tuple[list[CellRuns], list[LeftOut]]:
    """Return the cells in their order, and each record with a planned key that does not count, with why.

    A record whose scale, network, data set or seed differs from the plan of its key is left out. Of repeats
    of one key on one hardware the first that was started counts, regardless of its result.
    """
    by_key: dict[str, list[Evidence]] = defaultdict(list)
    for run in collection.runs:
        by_key[run.record.run_key].append(run)
    cells: dict[tuple[object, ...], CellRuns] = {}
    left_out: dict[object, LeftOut] = {}
    for wanted in planned:
        cell = cells.setdefault(wanted.cell, CellRuns([]))
        cell.planned.append(wanted)
        _add(cell, wanted, by_key.get(wanted.run_key, []), left_out)
    return list(cells.values()), list(left_out.values())


def _add(
    cell: CellRuns, wanted: PlannedRun, found: Sequence[Evidence], left_out: dict[object, LeftOut]
) -> None:
    hardware: set[str] = set()
    for run in by_start(found):
        unlike = [
            name
            for name in ("scale", "model", "data", "seed")
            if getattr(run.record, name) != getattr(wanted, name)
        ]
        if unlike:
            says, cell_says = getattr(run.record, unlike[0]), getattr(wanted, unlike[0])
            left_out[run.path] = LeftOut(
                run.path, f"it is of {unlike[0]} {says}, and the {wanted.table} cell of {cell_says}"
            )
        elif not run.finished:
            cell.unfinished.append(run.record.status)
        elif run.hardware in hardware:
            left_out[run.path] = LeftOut(
                run.path, "a repeat: another run of its key and hardware was started before it and counts"
            )
        else:
            hardware.add(run.hardware)
            cell.runs.setdefault(run.hardware, []).append(run)
