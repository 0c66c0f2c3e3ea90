from dataclasses import replace

import pytest

from cuttlefish.report.tables.match_runs import cell_runs
from tests.helpers.planned_runs import found, ran, wanted


def test_runs_meet_their_cell_by_key_one_a_seed():
    plan = [wanted("full", 0), wanted("full", 1), wanted("low")]
    cells, left_out = cell_runs(plan, found(ran("full", 1), ran("full", 0), ran("other")))
    (hardware,) = cells[0].runs
    assert [run.record.seed for run in cells[0].runs[hardware]] == [0, 1] and left_out == []
    assert (cells[1].runs, cells[1].state) == ({}, "no run")


def test_hardware_is_kept_apart():
    on_gpu = ran("full", 1, device="a GPU", threads=None)
    (cell,), _ = cell_runs([wanted("full", 0), wanted("full", 1)], found(ran("full", 0), on_gpu))
    shown = {hardware: [run.record.seed for run in runs] for hardware, runs in cell.runs.items()}
    assert shown == {"a CPU, 2 cores · fp32 · 2 threads": [0], "a GPU · fp32": [1]}


@pytest.mark.parametrize(
    "name, says, planned", [("scale", "free", "reduced"), ("seed", 3, 0), ("data", "svhn", "cifar10")]
)
def test_a_record_unlike_what_its_key_was_planned_for_is_refused(name, says, planned):
    edited = ran("full")
    edited = replace(edited, record=replace(edited.record, **{name: says}))
    (cell,), left_out = cell_runs([wanted("full")], found(edited))
    assert cell.runs == {}
    assert [item.reason for item in left_out] == [f"it is of {name} {says}, and the table1 cell of {planned}"]


def test_of_repeats_the_first_started_counts():
    late = ran("full", name="late", started="2026-01-02T00:00:00+00:00", accuracy_final=79.0)
    early = ran("full", name="z", started="2026-01-01T00:00:00+00:00", accuracy_final=70.0)
    (cell,), left_out = cell_runs([wanted("full")], found(late, early))
    assert [run.record.accuracy_final for runs in cell.runs.values() for run in runs] == [70.0]
    assert left_out[0].path == late.path and "a repeat" in left_out[0].reason


def test_a_cell_without_a_finished_run_says_why():
    failed = ran("full", status="failed", error="x")
    waiting = wanted("low", waits_for="k", waits_for_label="Cuttlefish")
    cells, _ = cell_runs([wanted("full"), waiting], found(failed))
    shown = [cell.state for cell in cells]
    assert shown == ["no finished run (failed)", "no run (it is to match Cuttlefish)"]
