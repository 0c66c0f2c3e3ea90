"""The runs of a figure's cells: planned runs matched with records as in the tables."""

from collections import defaultdict
from dataclasses import dataclass

from cuttlefish.evidence.records import Collection, Evidence
from cuttlefish.evidence.selection import by_seed
from cuttlefish.planning.planned_run import PlannedRun
from cuttlefish.report.figures.base import Sources
from cuttlefish.report.tables.match_runs import cell_runs

Network = tuple[str, str]


@dataclass(frozen=True)
class Group:
    """One cell with finished runs, ordered by seed. plan: any of its planned runs."""

    plan: PlannedRun
    runs: list[Evidence]

    @property
    def method(self) -> str:
        return self.runs[0].record.method


def groups_of(sources: Sources, table: str) -> dict[Network, list[Group]]:
    """Return (model, data set) -> the cells of a table or figure that have runs, in row order.

    For each seed the run started first counts, on any hardware.
    """
    cells, _ = cell_runs([one for one in sources.planned if one.table == table], Collection(sources.runs, []))
    networks: dict[Network, list[Group]] = defaultdict(list)
    for cell in cells:
        if runs := by_seed(cell.anywhere):
            plan = cell.planned[0]
            networks[plan.model, plan.data].append(Group(plan, list(runs.values())))
    return dict(networks)


def progress(sources: Sources, table: str) -> str:
    """Return `3 of its 25 runs are finished`."""
    wanted = {one.run_key for one in sources.planned if one.table == table}
    found = wanted & {run.record.run_key for run in sources.runs}
    return f"{len(found)} of its {len(wanted)} runs are finished"
