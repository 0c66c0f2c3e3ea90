"""The list that `--dry-run` prints: each run, its state and what it may cost."""

from __future__ import annotations

from collections.abc import Iterable

from cuttlefish.plan.cost import Estimates
from cuttlefish.plan.execute import each_once
from cuttlefish.plan.state import FINISHED, Known, state_of
from cuttlefish.report.planned import PlannedRun
from cuttlefish.report.table_spec import TableSpec

UNKNOWN = "unknown"


def ahead(runs: Iterable[PlannedRun], known: Known, estimates: Estimates) -> list[str]:
    """A line a run (a run that several tables show has one), and the sum of what is still to do."""
    unique = each_once(runs)
    rows = [_row(run, state_of(run, known), estimates.hours(run)) for run in unique]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*lines, _sum(unique, known, estimates)]


def waiting_lines(tables: Iterable[TableSpec]) -> list[str]:
    """Rows that no config can run yet."""
    return [
        f"{table.name}  {model} on {data}  {label}  {table.waiting.reason}"
        for table in tables
        if table.waiting
        for data in table.waiting.data
        for model, labels in table.waiting.models.items()
        for label in labels
    ]


def _row(run: PlannedRun, state: str, hours: float | None) -> tuple[str, ...]:
    cost = "" if state == FINISHED else _hours(hours)
    return (run.table, f"{run.model} on {run.data}", run.title, f"seed {run.seed}", run.run_key, state, cost)


def _sum(runs: Iterable[PlannedRun], known: Known, estimates: Estimates) -> str:
    todo = [estimates.hours(run) for run in runs if state_of(run, known) != FINISHED]
    known_hours = [hours for hours in todo if hours is not None]
    beyond = f", and {len(todo) - len(known_hours)} of unknown length" if len(known_hours) < len(todo) else ""
    return f"{len(todo)} runs to do: about {_hours(sum(known_hours))}{beyond}" if todo else "nothing to do"


def _hours(hours: float | None) -> str:
    return UNKNOWN if hours is None else f"{hours:.3g} device hours"
