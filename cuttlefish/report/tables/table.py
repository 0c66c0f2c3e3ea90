"""A table of results as data: blocks of rows under one head, each cell with its text, its value, its mark and its runs.

Made by `report/tables.py`, written by `report/table_text.py`, shown by the page. Free of torch and Hydra.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from cuttlefish.display.format import UNKNOWN
from cuttlefish.errors import CuttlefishError


@dataclass(frozen=True)
class Cell:
    """One field. text: what is read. value: what is sorted by, None where nothing is known; within a column all values are in
    the column's unit. mark: what the number must not be mistaken for or without, as in `reduced`; written beside it everywhere.
    runs: keys of the runs it comes from."""

    text: str = UNKNOWN
    value: float | str | None = None
    mark: str = ""
    runs: tuple[str, ...] = ()

    @property
    def marked(self) -> str:
        """The text with its mark: `78.93 % (reduced)`."""
        return f"{self.text} ({self.mark})" if self.mark and self.text != UNKNOWN else self.text


def text_cell(words: str, runs: tuple[str, ...] = ()) -> Cell:
    """A text that is sorted by itself; unknown where it is empty."""
    return Cell(words, words, runs=runs) if words else Cell()


@dataclass(frozen=True)
class Column:
    """key: short and stable, the CSV's head. title: what people read. unit: of the values. better: which end is the good one."""

    key: str
    title: str
    unit: str = ""
    numeric: bool = True
    better: Literal["higher", "lower", ""] = ""


@dataclass(frozen=True)
class Block:
    """Rows that may be compared with each other: one model, data set, recipe kind, scale and hardware. Ranking or sorting
    stays within a block."""

    title: str
    rows: list[list[Cell]]


@dataclass(frozen=True)
class Table:
    """name: file name and anchor (table1). notes: sentences below it. Raises CuttlefishError where a row does not fit the columns."""

    name: str
    title: str
    columns: list[Column]
    blocks: list[Block]
    notes: list[str]
    scale: str = ""

    def __post_init__(self) -> None:
        for block in self.blocks:
            for row in block.rows:
                if len(row) != len(self.columns):
                    raise CuttlefishError(
                        f"{self.name}, {block.title}: a row has {len(row)} cells for {len(self.columns)} columns"
                    )

    @property
    def rows(self) -> Iterator[tuple[Block, list[Cell]]]:
        """Every row with its block, in order."""
        return ((block, row) for block in self.blocks for row in block.rows)
