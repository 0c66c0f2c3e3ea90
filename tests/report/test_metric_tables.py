"""A table whose tasks have metrics of their own, as table 4."""

from dataclasses import replace
from math import sqrt

import pytest
from scipy.stats import t

from cuttlefish.evidence.interval import seeds_for
from cuttlefish.planning.spec import Scale
from cuttlefish.report.tables.build import all_tables
from tests.helpers.planned_runs import CLAIMS, cells, found, ran, spec_of, wanted

PLAN = [wanted("full", 0), wanted("full", 1), wanted("low", 0), wanted("low", 1)]


def run(row, seed, f1, **changes):
    metrics = {"f1": f1, "accuracy": f1 - 5.0}
    best = {"f1": f1 + 1.0, "accuracy": f1}
    fields = {"metric": "f1", "metrics": metrics, "metrics_best": best, "accuracy_final": metrics["accuracy"]}
    return ran(row, seed, **fields, params_total=400, params_trainable=300, **changes)


def metric_table(*runs):
    spec = spec_of()
    table = replace(spec.tables["table1"], metrics=True, scales={"reduced": Scale(note="MiniLM")}, paper=[])
    spec = replace(spec, tables={"table1": table})
    (made,), _ = all_tables(spec, PLAN, found(*runs), CLAIMS, "reduced")
    return made


def test_metrics_and_trainable_parameters_stand_in_the_table():
    table = metric_table(run("full", 0, 88.0), run("full", 1, 90.0), run("low", 0, 87.0))
    assert cells(table, 0)["metrics"].text == "f1 89.00 ± 1.41 (90.00), accuracy 84.00 ± 1.41"
    low = cells(table, 1)
    assert low["metrics"].text == "f1 87.00 (88.00), accuracy 82.00"
    assert low["params_total"].text.startswith("400") and low["params_trainable"].text == "300"
    assert "accuracy" not in low and table.blocks[0].rows[1][2].value == 87.0


def test_a_table_may_be_run_in_a_way_of_its_own_at_a_scale():
    table = metric_table(run("full", 0, 88.0))
    assert table.notes[0] == "MiniLM" and "reduced scale: little" not in table.notes


def test_rows_without_runs_have_as_many_cells():
    assert {len(row) for row in metric_table().blocks[0].rows} == {len(metric_table().columns)}


def test_the_seeds_that_a_point_needs_are_told():
    told = metric_table(run("full", 0, 88.0), run("full", 1, 90.0)).notes
    assert any("CIFAR-10 1.41 (2 seeds, 18 seeds needed)" in note for note in told)
    of_one_seed = metric_table(run("full", 0, 88.0)).notes
    assert not any("standard deviation, in points" in note for note in of_one_seed)


@pytest.mark.parametrize("deviation", [0.1, 0.5, 1.0, 1.4142135])
def test_so_many_seeds_are_enough_and_one_less_is_not(deviation):
    count = seeds_for(deviation)

    def margin(n):
        return t.ppf(0.975, n - 1) * deviation * sqrt(2) / sqrt(n)

    assert margin(count) <= 1 and (count == 2 or margin(count - 1) > 1)
