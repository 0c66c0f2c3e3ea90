from pathlib import Path

import pytest

from cuttlefish.config.compose import compose_config
from cuttlefish.planning.points import points
from cuttlefish.planning.spec import Row, Scale, Spec, TableSpec

SPEC = Spec(
    scales={
        "paper": Scale(),
        "reduced": Scale(["recipe=r"], {"data": ["a"]}, "equal budget"),
        "smoke": Scale(["debug=smoke"], match=False),
    },
    tables={
        "t": TableSpec(
            "T",
            "t",
            {"model": ["m", "n"], "data": ["a", "b"]},
            rows=[
                Row(
                    "Full", ["published", "equal budget"], ["paper", "reduced"], "full", words=["method=full"]
                ),
                Row(
                    "Low",
                    ["published"],
                    ["paper", "smoke"],
                    "low",
                    match="full",
                    words=["method=low", "x=0"],
                    at={"paper": ["x=1"]},
                ),
            ],
        ),
        "f": TableSpec(
            "F",
            "f",
            {"model": ["n"], "data": ["b"]},
            rows=[
                Row("Low again", ["published"], ["paper"], "again", of="t/low"),
                Row(
                    "Grid", ["published"], ["paper"], "grid", sweep={"method.k": [1, 5]}, words=["method=low"]
                ),
            ],
        ),
    },
)


def of(table, scale):
    return list(points(SPEC, SPEC.tables[table], scale))


def test_a_table_is_its_rows_times_its_sweep():
    assert [(point.row.name, *dict(point.values).values()) for point in of("t", "paper")] == [
        (row, model, data) for row in ("full", "low") for model in "mn" for data in "ab"
    ]
    assert of("t", "paper")[0].words == ("experiment=t", "method=full", "model=m", "data=a")
    assert of("t", "paper")[0].kinds == ("published", "equal budget")


def test_a_scale_adds_words_narrows_sweeps_and_sets_the_recipe():
    first, second = of("t", "reduced")
    assert first.words == ("experiment=t", "method=full", "model=m", "data=a", "recipe=r")
    assert second.words[2:4] == ("model=n", "data=a")
    assert first.kinds == ("equal budget",)


def test_sizes_come_from_the_named_row_of_the_same_cell():
    low = of("t", "paper")[-1]
    assert low.match.words == ("experiment=t", "method=full", "model=n", "data=b")
    assert [point.match for point in of("t", "smoke")] == [None] * 4


def test_a_rows_words_at_a_scale_replace_its_own():
    assert of("t", "paper")[-1].words == ("experiment=t", "method=low", "x=1", "model=n", "data=b")
    assert of("t", "smoke")[-1].words == (
        "experiment=t",
        "method=low",
        "x=0",
        "model=n",
        "data=b",
        "debug=smoke",
    )


def test_a_row_of_another_table_is_the_very_same_run():
    again = of("f", "paper")[0]
    assert again.words == of("t", "paper")[-1].words and again.match.words == of("t", "paper")[-1].match.words
    assert (again.table, again.row.label) == ("f", "Low again")


def test_a_row_sweeps_over_its_own_keys_too():
    grid = of("f", "paper")[1:]
    assert [point.own for point in grid] == [(("method.k", "1"),), (("method.k", "5"),)]
    assert grid[1].words == ("experiment=f", "method=low", "model=n", "data=b", "method.k=5")


@pytest.mark.parametrize("row", ["full_rank", "cuttlefish", "fixed_ratio", "full_rank_in_time"])
def test_minilm_is_tuned_at_its_own_learning_rate(spec, row):
    assert composed_rate(spec, row) == (5e-5, 5e-5)


def test_the_reference_of_table_4_keeps_its_learning_rates(spec):
    assert composed_rate(spec, "cuttlefish_reference") == (2e-5, 2e-5)


def composed_rate(spec, row):
    conf = Path(__file__).resolve().parents[2] / "conf"
    found = [point for point in points(spec, spec.table("table4"), "reduced") if point.row.name == row]
    schedule = compose_config(conf, found[0].words).recipe.schedule
    return schedule.base_lr, schedule.peak_lr
