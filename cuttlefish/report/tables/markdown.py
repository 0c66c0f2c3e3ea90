"""A table as Markdown and as CSV."""

import csv
import io
from collections.abc import Iterator

from cuttlefish.display.format import one_line
from cuttlefish.report.tables.table import Block, Cell, Column, Table

DAGGER = "†"
"""Follows every number that has a mark; the first note below the table explains it."""


def to_markdown(table: Table) -> str:
    """Return a heading, a table per block, then notes, in GitHub's flavour; marked numbers have a dagger."""
    lines = [f"# {escaped(table.title)}", ""]
    for block in table.blocks:
        lines += [f"## {escaped(block.title)}", "", *_markdown_block(table.columns, block), ""]
    lines += [line for note in notes_of(table) for line in (escaped(note), "")]
    return "\n".join(lines).rstrip() + "\n"


def notes_of(table: Table) -> list[str]:
    """Return the table's notes; the first has a dagger if a number has a mark."""
    is_marked = any(cell.mark for _, row in table.rows for cell in row)
    return [
        f"{DAGGER} {note}" if is_marked and index == 0 else note for index, note in enumerate(table.notes)
    ]


def to_csv(table: Table) -> str:
    """Return one line per row: table, scale, block, the columns, the mark and the keys of all runs.

    A numeric column has its value (in its unit, full precision) and its text; other columns have their text.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    heads = [head for column in table.columns for head in _heads(column)]
    writer.writerow(["table", "scale", "block", *heads, "mark", "run_keys"])
    for block, row in table.rows:
        cells = zip(table.columns, row, strict=True)
        fields = [field for column, cell in cells for field in _fields(column, cell)]
        marks = " ".join(dict.fromkeys(cell.mark for cell in row if cell.mark))
        keys = " ".join(dict.fromkeys(key for cell in row for key in cell.runs))
        writer.writerow([table.name, table.scale, one_line(block.title), *fields, marks, keys])
    return buffer.getvalue()


def daggered(column: Column, cell: Cell) -> str:
    """Return a cell's text, with a dagger if a number has a mark."""
    return f"{cell.text} {DAGGER}" if cell.mark and column.numeric else cell.text


def _markdown_block(columns: list[Column], block: Block) -> Iterator[str]:
    yield _line([column.title for column in columns])
    yield _line(["---:" if column.numeric else "---" for column in columns])
    for row in block.rows:
        yield _line([escaped(daggered(column, cell)) for column, cell in zip(columns, row, strict=True)])


def _line(words: list[str]) -> str:
    return f"| {' | '.join(words)} |"


def escaped(text: str) -> str:
    """Escape text that would end a column, start markup or break the line."""
    for character in "\\|*_`<":
        text = text.replace(character, f"\\{character}")
    return one_line(text)


def _heads(column: Column) -> list[str]:
    return [column.key, f"{column.key}_text"] if column.numeric else [column.key]


def _fields(column: Column, cell: Cell) -> list[object]:
    text = one_line(cell.text)
    return [cell.value if cell.value is not None else "", text] if column.numeric else [text]
