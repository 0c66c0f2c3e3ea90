"""Columns that tables 2 and 3 have beside the others, and what their runs are called by."""

from pathlib import Path

from cuttlefish.planning.execute import in_order_of_value
from cuttlefish.planning.runs import pick, planned_runs
from cuttlefish.planning.spec import read_spec
from cuttlefish.report.paper import __file__ as paper
from cuttlefish.report.tables.rows import columns_of, row_cells
from cuttlefish.report.tables.table import Cell
from tests.helpers.planned_runs import ran

ROOT = Path(__file__).resolve().parents[2]
FURTHER = ("accuracy_top5", "on_floor")


def cells_of(*runs):
    keys = [column.key for column in columns_of(False, FURTHER)]
    cells = row_cells("a row", runs, [], False, Cell(), "", further=FURTHER)
    return dict(zip(keys, cells, strict=True))


def with_facts(seed, on_floor, top5):
    metrics = {"accuracy": 1.0, "accuracy_top5": top5}
    return ran("low", seed, on_floor=on_floor, ranks={"a": 4, "b": 4}, metrics=metrics)


def test_ranks_on_their_floor_and_the_top_five_are_shown():
    shown = cells_of(with_facts(0, ["a", "b"], 90.0), with_facts(1, ["b"], 92.0))
    assert shown["on_floor"].text == "2 of 2, 1 of 2"
    assert shown["accuracy_top5"].value == 91.0 and shown["accuracy_top5"].text.startswith("91.00 ±")
    without = cells_of(ran("low", 0))
    assert without["on_floor"].value is without["accuracy_top5"].value is None


def test_reduced_networks_are_planned_and_picked_by_their_choice(tmp_path):
    spec = read_spec(Path(paper).with_name("tables.yaml"))
    runs = planned_runs(spec, ["table2", "table3"], "reduced", [0], ROOT, cache=tmp_path)
    assert {run.model for run in pick(runs, {"model": "reduced/resnet50"})} == {"resnet50"}
    assert {run.label for run in pick(runs, {"model": "reduced/resmlp"})} >= {"Full rank", "Cuttlefish"}
    order = in_order_of_value(runs, spec.scale("reduced").order)
    assert [run.choices("model")[0] for run in order[:4]] == ["reduced/resmlp"] * 4
    assert [run.row for run in order[:4]] == ["full_rank", "cuttlefish", "pufferfish", "cuttlefish_unscaled"]
    assert all(run.epochs == 30 and run.data == "cifar10" for run in runs)
