from pathlib import Path

import pytest

from cuttlefish.config.compose import compose_config
from cuttlefish.planning.points import points
from cuttlefish.planning.spec import read_spec

TABLES = """
scales:
  paper: {}
  reduced: {words: [recipe=r], sweep: {data: [a]}, kind: equal budget}
  smoke: {words: [debug=smoke], match: false}
tables:
  t:
    title: T
    sweep: {model: [m, n], data: [a, b]}
    rows:
      full: {label: Full, kinds: [published, equal budget], scales: [paper, reduced], words: [method=full]}
      low: {label: Low, kinds: [published], scales: [paper, smoke], match: full, words: [method=low, x=0],
        at: {paper: [x=1]}}
  f:
    title: F
    sweep: {model: [n], data: [b]}
    rows:
      again: {label: Low again, of: t/low, scales: [paper]}
      grid: {label: Grid, kinds: [published], scales: [paper], sweep: {method.k: [1, 5]}, words: [method=low]}
"""


@pytest.fixture
def of(tmp_path):
    """The points of a table at a scale."""
    (tmp_path / "tables.yaml").write_text(TABLES)
    spec = read_spec(tmp_path / "tables.yaml")
    return lambda table, scale: list(points(spec, spec.tables[table], scale))


def test_a_table_is_its_rows_times_its_sweep(of):
    assert [(point.row.name, *dict(point.values).values()) for point in of("t", "paper")] == [
        (row, model, data) for row in ("full", "low") for model in "mn" for data in "ab"
    ]
    assert of("t", "paper")[0].words == ("experiment=t", "method=full", "model=m", "data=a")
    assert of("t", "paper")[0].kinds == ("published", "equal budget")


def test_a_scale_adds_words_narrows_sweeps_and_sets_the_recipe(of):
    first, second = of("t", "reduced")
    assert first.words == ("experiment=t", "method=full", "model=m", "data=a", "recipe=r")
    assert second.words[2:4] == ("model=n", "data=a")
    assert first.kinds == ("equal budget",)


def test_sizes_come_from_the_named_row_of_the_same_cell(of):
    low = of("t", "paper")[-1]
    assert low.match.words == ("experiment=t", "method=full", "model=n", "data=b")
    assert [point.match for point in of("t", "smoke")] == [None] * 4


def test_a_rows_words_at_a_scale_replace_its_own(of):
    assert of("t", "paper")[-1].words == ("experiment=t", "method=low", "x=1", "model=n", "data=b")
    shown = of("t", "smoke")[-1].words
    assert shown == ("experiment=t", "method=low", "x=0", "model=n", "data=b", "debug=smoke")


def test_a_row_of_another_table_is_the_very_same_run(of):
    again = of("f", "paper")[0]
    assert again.words == of("t", "paper")[-1].words and again.match.words == of("t", "paper")[-1].match.words
    assert (again.table, again.row.label) == ("f", "Low again")


def test_a_row_sweeps_over_its_own_keys_too(of):
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
