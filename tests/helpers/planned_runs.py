"""Planned runs made by hand, and records that belong to them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from cuttlefish.evidence.records import Collection, Evidence
from cuttlefish.planning.planned_run import PlannedRun
from cuttlefish.planning.spec import Row, Scale, Spec, Stated, TableSpec
from cuttlefish.report.tables.table import Cell, Table
from tests.helpers.synthetic_records import record


def key_of(row: str, seed: int = 0, model: str = "resnet18") -> str:
    return f"{row}-{model}-{seed}"


def wanted(row: str, seed: int = 0, **changes: Any) -> PlannedRun:
    model = changes.get("model", "resnet18")
    fields: dict[str, Any] = dict(
        table="table1",
        row=row,
        label=row.title(),
        kinds=("equal budget",),
        baseline=row == "full",
        model=model,
        data="cifar10",
        scale="reduced",
        seed=seed,
        point=(),
        run_key=key_of(row, seed, model),
        words=("experiment=table1", f"method={row}", f"seed={seed}"),
        folder=f"runs/reduced/{key_of(row, seed, model)}",
        epochs=30,
    )
    return PlannedRun(**(fields | changes))


def ran(row: str, seed: int = 0, name: str = "", **changes: Any) -> Evidence:
    """A run of a row, finished unless `status` says otherwise; name: its folder."""
    status = changes.pop("status", "finished")
    fields = {"run_key": key_of(row, seed, changes.get("model", "resnet18"))} | changes
    made = replace(record("pufferfish", seed, **fields), status=status)
    folder = name or f"{fields['run_key']}-{changes.get('device', 'cpu')}"
    return Evidence(Path("/r") / folder / "record.json", made)


def found(*runs: Evidence) -> Collection:
    return Collection(list(runs), [])


def spec_of() -> Spec:
    quantities = {"size": "compression", "faster": "speedup"}
    stated = [Stated("low", "resnet18", "cifar10", claim, quantity) for claim, quantity in quantities.items()]
    kept = ["equal budget"], ["reduced"]
    rows = [Row("Full", *kept, "full", baseline=True), Row("Low", *kept, "low")]
    one = TableSpec("One", "table1", paper=stated, rows=rows)
    others = [TableSpec("Later", "table2"), TableSpec("Figure", "figure1")]
    tables = {table.name: table for table in (one, *others)}
    scales = {"reduced": Scale(note="reduced scale: little")}
    return Spec(scales, tables, {"resnet18": "ResNet-18", "cifar10": "CIFAR-10"})


def cells(table: Table, row: int, block: int = 0) -> dict[str, Cell]:
    """The cells of a table's row by column."""
    return dict(zip([column.key for column in table.columns], table.blocks[block].rows[row], strict=True))


CLAIMS = {"size": {"value": 5.0}, "faster": {"value": 1.2}, "words": {"accept": "text"}}
