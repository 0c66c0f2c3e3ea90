import pytest

from cuttlefish.errors import CuttlefishError
from cuttlefish.plan.spec import read_spec

TABLES = "scales: {paper: {}}\ntables:\n  t: {title: T, order: [b]}\n"
ROW = "row: {label: B, kinds: [published], scales: [paper]}\n"


def read(tmp_path, tables=TABLES, row=ROW):
    (tmp_path / "experiment" / "t").mkdir(parents=True, exist_ok=True)
    (tmp_path / "tables.yaml").write_text(tables)
    (tmp_path / "experiment" / "t" / "b.yaml").write_text(row)
    (tmp_path / "experiment" / "t" / "a.yaml").write_text(ROW)
    return read_spec(tmp_path / "tables.yaml", tmp_path / "experiment")


def test_rows_are_the_files_of_the_table_s_folder_in_its_order(tmp_path):
    spec = read(tmp_path)
    assert [row.name for row in spec.table("t").rows] == ["b", "a"] and spec.table("t").row("a").label == "B"
    assert spec.called("x") == "x"


@pytest.mark.parametrize("changes, words", [
    ({"tables": TABLES.replace("[b]", "[bb]")}, "t names the row bb, and .* has no bb.yaml"),
    ({"row": ROW.replace("row", "now")}, "b.yaml has no row"),
    ({"row": ROW.replace("published", "print")}, "kinds are published and equal budget, not 'print'"),
    ({"row": ROW.replace("label", "lable")}, "no key row of b.yaml.lable"),
    ({"row": "row: [1]\n"}, "must be a mapping"),
    ({"row": "row: {label: B, kinds: [published], scales: [paper], match: c}\n"}, "names the row c"),
    ({"tables": "[1]"}, "must hold a mapping"),
    ({"tables": "{"}, "cannot read .*tables.yaml"),
    ({"tables": TABLES.replace("title: T", "title: 3")}, "tables.yaml.tables.t.title must be a string, not 3"),
])  # fmt: skip
def test_mistakes_are_told_in_one_sentence(tmp_path, changes, words):
    with pytest.raises(CuttlefishError, match=words):
        read(tmp_path, **changes)


@pytest.mark.parametrize("block, words", [
    ("{table: t, seeds: [0], data: [d], models: [m], rows: [bb]}", "t has no row bb"),
    ("{table: t, seeds: [0], data: [d], models: [n], rows: [b]}", "names model=n, which t has not"),
    ("{table: t, seeds: [0], data: [d], models: [m], rows: [c]}", "names t, row c, which is not run there"),
    ("{table: u, seeds: [0], data: [d], models: [m], rows: [b]}", "no table or figure 'u'"),
])  # fmt: skip
def test_the_order_of_value_names_runs_of_the_tables_only(tmp_path, block, words):
    tables = f"scales: {{paper: {{order: [{block}]}}}}\ntables:\n  t: {{title: T, sweep: {{model: [m], data: [d]}}}}\n"
    (tmp_path / "experiment" / "t").mkdir(parents=True)
    (tmp_path / "experiment" / "t" / "c.yaml").write_text(ROW.replace("paper", "smoke"))
    with pytest.raises(CuttlefishError, match=words):
        read(tmp_path, tables)


def test_unknown_names_are_refused(tmp_path):
    spec = read(tmp_path)
    for ask, words in (
        (lambda: spec.table("table9"), "no table or figure 'table9'"),
        (lambda: spec.scale("tiny"), "no scale 'tiny'"),
    ):
        with pytest.raises(CuttlefishError, match=words):
            ask()
    with pytest.raises(CuttlefishError, match="t has no row z"):
        spec.table("t").row("z")
