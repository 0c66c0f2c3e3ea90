from dataclasses import replace

import pytest

from cuttlefish.display.format import UNKNOWN
from cuttlefish.errors import CuttlefishError
from cuttlefish.planning.spec import Scale, Stated
from cuttlefish.report.tables.build import all_tables
from tests.helpers.planned_runs import CLAIMS, cells, found, key_of, ran, spec_of, wanted

PLAN = [wanted("full", 0), wanted("full", 1), wanted("low", 0), wanted("low", 1)]


def table_of(runs, plan=PLAN, scale="reduced", spec=None):
    tables, left_out = all_tables(spec or spec_of(), plan, found(*runs), CLAIMS, scale)
    assert [table.name for table in tables] == ["table1", "table2"], "figures are not tables"
    return tables[0], left_out


def test_a_row_shows_means_sizes_hours_and_its_runs():
    low = [ran("low", seed, accuracy_final=accuracy) for seed, accuracy in ((0, 74.0), (1, 76.0))]
    table, _ = table_of([ran("full", 0, compute_seconds=7200.0, wall_seconds=8000.0, seconds={}), *low])
    low = cells(table, 1)
    assert low["accuracy"].text == "75.00 ± 1.41 (80.00)" and low["accuracy"].value == 75.0
    got = (low["seeds"].text, low["params_total"].text, low["hours"].text)
    assert got == ("2", "400 (2.50×)", "0.0278 h")
    assert low["speedup"].text == "72.00×" and cells(table, 0)["speedup"].text == UNKNOWN
    assert low["accuracy"].runs == (key_of("low", 0), key_of("low", 1)) == tuple(low["runs"].text.split(", "))


def test_a_mask_is_never_sold_as_speed():
    full = ran("full", compute_seconds=100.0, seconds={})
    masked = {"macs_full": 1000, "macs_final": 1000, "wall_seconds": 400.0}
    fast, _ = table_of([full, ran("low", compute_seconds=50.0, **masked)])
    slow, _ = table_of([full, ran("low", compute_seconds=200.0, **masked)])
    got = (cells(fast, 1)["speedup"].text, cells(fast, 1)["speedup"].value)
    assert got == ("none: as many MACs", None)
    assert cells(slow, 1)["speedup"].text == "0.50×"


def test_a_scale_whose_times_are_no_evidence_shows_no_speedup():
    spec, runs = spec_of(), [ran("full", compute_seconds=7200.0, wall_seconds=8000.0, seconds={}), ran("low")]
    shared = replace(spec, scales={"reduced": Scale(note="little", times="The runs shared their machine.")})
    table, _ = table_of(runs, spec=shared)
    assert cells(table, 1)["speedup"].text == UNKNOWN and cells(table, 1)["hours"].value > 0
    assert table.notes[:2] == ["little", "The runs shared their machine."]
    assert cells(table_of(runs)[0], 1)["speedup"].value == pytest.approx(72.0)


def test_only_numbers_of_reduced_runs_are_marked():
    table, _ = table_of([ran("low")])
    numbers = [cell for cell in table.blocks[0].rows[1] if isinstance(cell.value, int | float)]
    assert {cell.mark for cell in numbers if cell.text not in ("1", key_of("low"))} == {"reduced"}
    assert "reduced scale" in table.title and table.notes[0] == "reduced scale: little"
    plan = [replace(run, scale="paper") for run in PLAN]
    table, _ = table_of([ran("low", scale="paper")], plan, "paper")
    assert {cell.mark for _, row in table.rows for cell in row} == {""} and table.title == "One"


def test_the_paper_is_compared_at_its_own_scale_only():
    full = ran("full", scale="paper", compute_seconds=150.0, wall_seconds=200.0, seconds={})
    low = ran("low", scale="paper", compute_seconds=100.0, seconds={})
    table, _ = table_of([full, low], [replace(run, scale="paper") for run in PLAN], "paper")
    assert cells(table, 1)["paper"].text == "5× smaller (ours -2.50) · 1.2× faster (ours +0.30)"
    assert cells(table_of([ran("full"), ran("low")])[0], 1)["paper"].text == "5× smaller · 1.2× faster"
    assert cells(table_of([])[0], 1)["paper"].text == "5× smaller · 1.2× faster"


@pytest.mark.parametrize(
    "scale, shown", [("reduced", "E 82.3 of 300"), ("paper", "E 82.3 of 300 (ours -72.3)")]
)
def test_the_papers_e_is_told_with_the_length_of_its_run(scale, shown):
    spec = replace(spec_of(), scales={scale: Scale()})
    stated = Stated("low", "resnet18", "cifar10", "e", "switch_epoch")
    spec.tables["table1"] = replace(spec.tables["table1"], paper=[stated])
    claims = {"e": {"value": 82.3}}
    plan = [wanted("low", scale=scale)]
    tables, _ = all_tables(spec, plan, found(ran("low", scale=scale, switch_epoch=10)), claims, scale)
    assert cells(tables[0], 0)["paper"].text == shown


@pytest.mark.parametrize("stated, words", [
    (Stated("low", "resnet18", "cifar10", "nothing", "compression"), "the claim nothing has no value"),
    (Stated("low", "resnet18", "cifar10", "words", "compression"), "the claim words has no value"),
    (Stated("low", "resnet18", "cifar10", "size", "beauty"), "quantity 'beauty' is not one of"),
])  # fmt: skip
def test_a_claim_that_cannot_be_shown_is_refused(stated, words):
    spec = spec_of()
    spec.tables["table1"] = replace(spec.tables["table1"], paper=[stated])
    with pytest.raises(CuttlefishError, match=words):
        table_of([ran("low")], spec=spec)


def test_each_hardware_has_a_block_of_its_own():
    others = [ran("low", device="a GPU", threads=None), ran("low", 1, precision="bf16")]
    table, _ = table_of([ran("full"), *others])
    assert [block.title.split(" · ", 1)[1] for block in table.blocks] == [
        "a CPU, 2 cores · fp32 · 2 threads", "a GPU · fp32", "a CPU, 2 cores · bf16 · 2 threads",
    ]  # fmt: skip
    assert [cells(table, 1, index)["speedup"].text for index in range(3)] == [UNKNOWN] * 3
    assert cells(table, 1)["runs"].text == "run on other hardware"


def test_published_and_equal_budget_rows_are_never_in_one_block():
    both = wanted("full", kinds=("published", "equal budget"))
    plan = [both, wanted("low"), wanted("high", kinds=("published",))]
    table, _ = table_of([ran("full"), ran("low"), ran("high")], plan)
    shown = {block.title.split(" · ")[0]: [row[0].text for row in block.rows] for block in table.blocks}
    assert shown == {
        "ResNet-18 on CIFAR-10, recipes as published": ["Full", "High"],
        "ResNet-18 on CIFAR-10, equal budget": ["Full", "Low"],
    }


def test_a_cell_without_a_run_says_so():
    table, _ = table_of([])
    assert [row[-1].text for row in table.blocks[0].rows] == ["no run", "no run"]


def test_records_of_another_scale_count_nowhere_and_are_named():
    table, left_out = table_of([ran("low", scale="free")])
    assert table.blocks[0].rows[1][-1].text == "no run" and len(left_out) == 1


def test_cpus_share_a_block_where_times_are_no_evidence():
    spec = spec_of()
    reduced = replace(spec.scale("reduced"), times="no evidence of speed.")
    spec = replace(spec, scales={**spec.scales, "reduced": reduced})
    runs = [ran("full"), ran("low"), ran("low", 1, device="another CPU, 1 core"), ran("low", device="a GPU")]
    plan = [wanted("full"), wanted("low"), wanted("low", 1)]
    table, _ = table_of(runs, plan, spec=spec)
    assert [block.title.split(" · ", 1)[1] for block in table.blocks] == [
        "a CPU, 2 cores · fp32 · 2 threads and another CPU, 1 core · fp32 · 2 threads",
        "a GPU · fp32 · 2 threads",
    ]
    assert cells(table, 1)["seeds"].text == "2" and cells(table, 1, 1)["seeds"].text == "1"
