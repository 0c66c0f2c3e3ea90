"""Planned runs made by hand, and records that belong to them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from cuttlefish.evidence.records import Collection, Evidence
from cuttlefish.planning.planned_run import PlannedRun
from cuttlefish.planning.spec import Row, Scale, Spec, Stated, TableSpec
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
    return Evidence(
        Path("/r") / (name or f"{fields['run_key']}-{changes.get('device', 'cpu')}") / "record.json", made
    )


def found(*runs: Evidence) -> Collection:
    return Collection(list(runs), [])


def spec_of() -> Spec:
    stated = [
        Stated("low", "resnet18", "cifar10", "size", "compression"),
        Stated("low", "resnet18", "cifar10", "faster", "speedup"),
    ]
    rows = [
        Row("Full", ["equal budget"], ["reduced"], "full", baseline=True),
        Row("Low", ["equal budget"], ["reduced"], "low"),
    ]
    one = TableSpec("One", "table1", paper=stated, rows=rows)
    tables = {
        "table1": one,
        "table2": TableSpec("Later", "table2"),
        "figure1": TableSpec("Figure", "figure1"),
    }
    return Spec(
        {"reduced": Scale(note="reduced scale: little")},
        tables,
        {"resnet18": "ResNet-18", "cifar10": "CIFAR-10"},
    )


CLAIMS = {"size": {"value": 5.0}, "faster": {"value": 1.2}, "words": {"accept": "text"}}
