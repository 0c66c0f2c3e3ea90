"""The runs of a figure's cells: planned runs met with records by run key."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from cuttlefish.report.evidence import Evidence
from cuttlefish.report.figures.figure import Sources
from cuttlefish.report.planned import PlannedRun

Network = tuple[str, str]


@dataclass(frozen=True)
class Group:
    """One cell that has finished runs, in the order of seeds. plan: any of its planned runs."""

    plan: PlannedRun
    runs: list[Evidence]

    @property
    def method(self) -> str:
        return self.runs[0].record["method"]


def groups_of(sources: Sources, table: str) -> dict[Network, list[Group]]:
    """Model and data set → the cells of a table or figure that have runs, in the order of its rows."""
    by_key: dict[str, list[Evidence]] = defaultdict(list)
    for run in sources.runs:
        by_key[run.record["run_key"]].append(run)
    cells: dict[tuple[object, ...], Group] = {}
    for wanted in (one for one in sources.planned if one.table == table):
        if wanted.run_key in by_key:
            cells.setdefault(wanted.cell, Group(wanted, [])).runs.extend(by_key[wanted.run_key])
    networks: dict[Network, list[Group]] = defaultdict(list)
    for group in cells.values():
        networks[group.plan.model, group.plan.data].append(group)
    return dict(networks)


def progress(sources: Sources, table: str) -> str:
    """`3 of its 25 runs are finished`"""
    wanted = {one.run_key for one in sources.planned if one.table == table}
    found = wanted & {run.record["run_key"] for run in sources.runs}
    return f"{len(found)} of its {len(wanted)} runs are finished"
