import pytest

from cuttlefish.display.format import UNKNOWN
from cuttlefish.errors import CuttlefishError
from cuttlefish.report.tables.table import Block, Cell, Column, Table


def test_a_cell_wears_its_mark_and_an_unknown_one_none():
    assert Cell("78.93 %", 78.93, "reduced").marked == "78.93 % (reduced)"
    assert Cell("78.93 %", 78.93).marked == "78.93 %"
    assert Cell(mark="reduced").marked == UNKNOWN


def test_rows_come_with_their_block_and_must_fit_the_columns():
    columns = [Column("method", "method", numeric=False), Column("accuracy", "accuracy", "%")]
    blocks = [
        Block("a", [[Cell("x"), Cell("1", 1)], [Cell("y"), Cell("2", 2)]]),
        Block("b", [[Cell("z"), Cell()]]),
    ]
    table = Table("t", "T", columns, blocks, [])
    assert [(block.title, row[0].text) for block, row in table.rows] == [("a", "x"), ("a", "y"), ("b", "z")]
    with pytest.raises(CuttlefishError, match="^t, c: a row has 1 cells for 2 columns$"):
        Table("t", "T", columns, [Block("c", [[Cell()]])], [])
