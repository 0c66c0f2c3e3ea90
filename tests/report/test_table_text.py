import csv
import io
import re
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cuttlefish.display.format import one_line
from cuttlefish.evidence.records import LeftOut
from cuttlefish.report.tables.latex import escaped, to_latex
from cuttlefish.report.tables.markdown import to_csv, to_markdown
from cuttlefish.report.tables.table import Block, Cell, Column, Table
from cuttlefish.report.tables.write import left_out_text

METHOD = Column("method", "method", numeric=False)
COLUMNS = [METHOD, Column("accuracy", "accuracy", "%"), Column("size", "size")]
OF_RUNS = "reduced", ("abc", "def")
ROWS = [
    [Cell("SI&FD_x|y", "SI&FD"), Cell("78.93 ± 0.21", 78.931, *OF_RUNS), Cell("3.05×", 3.05, *OF_RUNS)],
    [Cell("none"), Cell(), Cell()],
]
BLOCKS = [Block("a block · 1", ROWS), Block("another", ROWS[1:])]
NOTES = ["Reduced: means little.", "Other."]
TABLE = Table("table1", "Table 1: 50 % & more", COLUMNS, BLOCKS, NOTES, "reduced")


def test_markdown_has_a_table_a_block_and_marks_numbers():
    lines = to_markdown(TABLE).splitlines()
    assert lines[0] == "# Table 1: 50 % & more"
    assert [line for line in lines if line.startswith("##")] == ["## a block · 1", "## another"]
    assert lines[4:7] == [
        "| method | accuracy | size |",
        "| --- | ---: | ---: |",
        "| SI&FD\\_x\\|y | 78.93 ± 0.21 † | 3.05× † |",
    ]
    assert "† Reduced: means little." in lines and "Other." in lines


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=30))
def test_no_text_breaks_a_markdown_row(text):
    table = Table("t", "t", COLUMNS, [Block("b", [[Cell(text), Cell(), Cell()]])], [])
    rows = [line for line in to_markdown(table).split("\n") if line.startswith("|")]
    assert len(rows) == 3 and len(re.findall(r"(?<!\\)(?:\\\\)*\|", rows[2])) == 4


def test_csv_has_values_and_texts_and_run_keys():
    rows = list(csv.DictReader(io.StringIO(to_csv(TABLE))))
    assert len(rows) == 3 and [row["block"] for row in rows] == ["a block · 1", "a block · 1", "another"]
    assert float(rows[0]["accuracy"]) == 78.931
    assert rows[0]["accuracy_text"] == "78.93 ± 0.21"
    assert rows[1]["accuracy"] == ""
    found = (rows[0]["mark"], rows[0]["run_keys"], rows[0]["scale"], rows[1]["mark"])
    assert found == ("reduced", "abc def", "reduced", "")


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=30))
def test_csv_keeps_any_text_on_one_line(text):
    table = Table("t", "t", COLUMNS, [Block(text, [[Cell(text), Cell(), Cell()]])], [])
    (row,) = csv.DictReader(io.StringIO(to_csv(table), newline=""))
    assert (row["method"], row["block"]) == (one_line(text),) * 2


def test_latex_is_balanced_and_every_row_is_full():
    lines = to_latex(TABLE).splitlines()
    body = lines[lines.index(r"\toprule") + 1 : lines.index(r"\bottomrule")]
    found = [line for line in lines if line.startswith(r"\begin")]
    assert found == [r"\begin{table*}", r"\begin{tabular}{lrr}"]
    assert [line for line in lines if line.startswith(r"\end")] == [r"\end{tabular}}", r"\end{table*}"]
    assert all(line.endswith(r"\\") or line == r"\midrule" for line in body)
    rows = [line for line in body if not line.startswith((r"\midrule", r"\multicolumn"))]
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [2] * 4
    assert (
        rows[1] == r"SI\&FD\_x\textbar{}y & 78.93 $\pm$ 0.21 \textsuperscript{\dag} "
        r"& 3.05$\times$ \textsuperscript{\dag} \\"
    )
    text = "\n".join(line.split("%")[0] if line.startswith("%") else line for line in lines)
    assert len(re.findall(r"(?<!\\)\{", text)) == len(re.findall(r"(?<!\\)\}", text))


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=40))
def test_escaped_text_holds_nothing_that_latex_acts_on(text):
    out = escaped(text)
    assert out.isascii()
    rest = re.sub(
        r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar|textquotedbl|ldots)\{\}",
        "",
        out,
    )
    rest = re.sub(r"\$(\\(times|pm|cdot|geq|leq|tau|rho|epsilon)|-)\$|\\textsuperscript\{\\dag\}", "", rest)
    rest = re.sub(r"\\[{}&%$#_]", "", rest)
    assert not set(rest) & set("\\{}&%$#_~^<>|")


HOSTILE = "\x1b[31m# [bold]a_b*|`x`\u202e<i>\n\x07z"


def test_hostile_text_is_harmless_in_every_format():
    table = Table("t", HOSTILE, COLUMNS, [Block(HOSTILE, [[Cell(HOSTILE), Cell(), Cell()]])], [HOSTILE])
    markdown = to_markdown(table)
    for text in (markdown, to_csv(table), to_latex(table)):
        assert not set(text) & set("\x1b\x07\u202e")
    assert markdown.startswith("# [31m# [bold]a\\_b\\*\\|\\`x\\`\\<i> z\n")
    left = left_out_text([LeftOut(Path(f"/root/{HOSTILE}"), HOSTILE)], Path("/root"))
    assert left.count("\n") == 3 and "\x1b" not in left and left.count("`") - left.count("\\`") == 2
