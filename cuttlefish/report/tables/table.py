"""A table of results as data: blocks of rows under one head; free of torch and Hydra."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from cuttlefish.display.format import UNKNOWN
from cuttlefish.errors import CuttlefishError


@dataclass(frozen=True)
class Cell:
    """One field.

    Attributes:
        text: The displayed text.
        value: The sort key, in the column's unit; None if unknown.
        mark: A warning shown with the number everywhere, such as `reduced`.
        runs: Keys of its runs.
    """

    text: str = UNKNOWN
    value: float | str | None = None
    mark: str = ""
    runs: tuple[str, ...] = ()

    @property
    def marked(self) -> str:
        """The text with its mark: `78.93 % (reduced)`."""
        return f"{self.text} ({self.mark})" if self.mark and self.text != UNKNOWN else self.text


def text_cell(words: str, runs: tuple[str, ...] = ()) -> Cell:
    """Return a text cell sorted by its text; unknown if empty."""
    return Cell(words, words, runs=runs) if words else Cell()


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: Short, stable name: the CSV's heading.
        title: Displayed heading.
        unit: Unit of the values.
        better: Whether higher or lower is better.
    """

    key: str
    title: str
    unit: str = ""
    numeric: bool = True
    better: Literal["higher", "lower", ""] = ""


@dataclass(frozen=True)
class Block:
    """Rows that may be compared: one model, data set, recipe kind, scale and hardware."""

    title: str
    rows: list[list[Cell]]


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: File name and anchor (table1).
        notes: Sentences below it.

    Raises:
        CuttlefishError: A row does not fit the columns.
    """

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
                    where = f"{self.name}, {block.title}"
                    raise CuttlefishError(
                        f"{where}: a row has {len(row)} cells for {len(self.columns)} columns"
                    )

    @property
    def rows(self) -> Iterator[tuple[Block, list[Cell]]]:
        """Every row with its block, in order."""
        return ((block, row) for block in self.blocks for row in block.rows)
