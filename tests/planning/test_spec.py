import pytest

from cuttlefish.errors import CuttlefishError
from cuttlefish.planning.spec import read_spec

ROW = "{label: B, kinds: [published], words: [method=b]}"
TABLES = """
scales: {paper: {}, smoke: {}}
tables:
  t:
    title: T
    rows:
      b: ROW
      a: {label: A, kinds: [published, equal budget], scales: [paper], baseline: true}
  u: {title: U, rows: {again: {of: t/a}, other: {of: t/b, label: C}}}
"""


def read(tmp_path, tables=TABLES, row=ROW):
    (tmp_path / "tables.yaml").write_text(tables.replace("ROW", row))
    return read_spec(tmp_path / "tables.yaml")


def test_rows_keep_the_files_order_and_run_at_every_scale(tmp_path):
    spec = read(tmp_path)
    found = [(row.name, row.label, row.scales) for row in spec.table("t").rows]
    assert found == [("b", "B", ["paper", "smoke"]), ("a", "A", ["paper"])]
    assert spec.called("x") == "x"


def test_a_row_of_another_table_is_labelled_as_it_is_there(tmp_path):
    again, other = read(tmp_path).table("u").rows
    found = (again.of, again.label, again.kinds, again.scales, again.baseline, again.words)
    assert found == ("t/a", "A", ["published", "equal budget"], ["paper"], True, [])
    found = (other.label, other.kinds, other.scales, other.baseline)
    assert found == ("C", ["published"], ["paper", "smoke"], False)


@pytest.mark.parametrize(
    "changes, words",
    [
        (
            {"tables": TABLES.replace("t/a", "t/aa")},
            "rows.again is of t/aa, and t has no such row .* did you mean a",
        ),
        ({"row": ROW.replace("published", "print")}, "kinds are published and equal budget, not 'print'"),
        (
            {"row": ROW.replace("label", "lable")},
            r"no key tables.yaml.tables.t.rows\[0\].lable; did you mean",
        ),
        ({"row": "[1]"}, "tables.t.rows.b must be a mapping"),
        ({"row": ROW.replace("words", "match: c, words")}, "t has no row c"),
        ({"tables": "[1]"}, "must hold a mapping"),
        ({"tables": "{"}, "cannot read .*tables.yaml"),
        (
            {"tables": TABLES.replace("title: T", "title: 3")},
            "tables.yaml.tables.t.title must be a string, not 3",
        ),
        ({"tables": "scales: {}\ntables: {t: 3}"}, "tables.yaml.tables.t must be a mapping, not 3"),
    ],
)
def test_mistakes_are_told_in_one_sentence(tmp_path, changes, words):
    with pytest.raises(CuttlefishError, match=words):
        read(tmp_path, **changes)


@pytest.mark.parametrize(
    "table, model, row, words",
    [
        ("t", "m", "bb", "t has no row bb"),
        ("t", "n", "b", "names model=n, which t has not"),
        ("t", "m", "c", "names t, row c, which is not run there"),
        ("u", "m", "b", "no table or figure 'u'"),
    ],
)
def test_the_order_of_value_names_runs_of_the_tables_only(tmp_path, table, model, row, words):
    block = f"{{table: {table}, seeds: [0], data: [d], models: [{model}], rows: [{row}]}}"
    rows = f"{{b: {ROW}, c: {ROW.replace('words', 'scales: [smoke], words')}}}"
    of_t = f"{{title: T, sweep: {{model: [m], data: [d]}}, rows: {rows}}}"
    tables = f"scales: {{paper: {{order: [{block}]}}, smoke: {{}}}}\ntables: {{t: {of_t}}}\n"
    with pytest.raises(CuttlefishError, match=words):
        read(tmp_path, tables)


def test_unknown_names_are_refused(tmp_path):
    spec = read(tmp_path)
    with pytest.raises(CuttlefishError, match="no table or figure 'table9'"):
        spec.table("table9")
    with pytest.raises(CuttlefishError, match="no scale 'tiny'"):
        spec.scale("tiny")
    with pytest.raises(CuttlefishError, match="t has no row z"):
        spec.table("t").row("z")


def test_every_scale_has_its_registered_order_of_value(spec):
    blocks = {name: len(scale.order) for name, scale in spec.scales.items()}
    assert blocks == {"paper": 11, "reduced": 14, "smoke": 1}
