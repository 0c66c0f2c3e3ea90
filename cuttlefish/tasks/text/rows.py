"""Read rows of sentences and labels from TSV, CSV, JSON and JSON-lines files, plain or compressed (.xz, .gz).

Every mistake ends in one sentence that names the file and the line.
"""

import csv
import gzip
import io
import json
import lzma
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuttlefish.config.suggest import choose_from
from cuttlefish.errors import CuttlefishError

OPENERS = {".xz": lzma.open, ".gz": gzip.open}
FORMATS = (".tsv", ".csv", ".json", ".jsonl")


@dataclass(frozen=True)
class Table:
    """The rows of one file.

    Attributes:
        rows: (line number, one value per column); in a JSON list the number counts the objects.
    """

    path: Path
    columns: Sequence[str]
    rows: list[tuple[int, Sequence[Any]]]

    def place(self, line: int) -> str:
        return f"{self.path}, line {line}"

    def column(self, name: str) -> int:
        """Return the index of a column. Raises CuttlefishError if there is none of that name."""
        if name not in self.columns:
            raise CuttlefishError(f"{self.path} has no column {name}{choose_from(name, self.columns)}")
        return list(self.columns).index(name)


def read_table(path: Path, columns: Sequence[str] | None = None, skip_short: bool = False) -> Table:
    """Read a file by its suffix. TSV has no quoting, as GLUE's has none; CSV is quoted as usual.

    Args:
        columns: Names of the columns of a TSV or CSV file without a header line.
        skip_short: Leave out rows with too few fields instead of refusing the file.

    Raises:
        CuttlefishError: The file is missing, unreadable, of another format, empty or has a malformed row.
    """
    suffix = (path.with_suffix("") if path.suffix in OPENERS else path).suffix.lower()
    if suffix not in FORMATS:
        raise CuttlefishError(
            f"{path} is none of the files that can be read: {', '.join(FORMATS)}, also .xz, .gz"
        )
    text = _text(path)
    if suffix in (".json", ".jsonl"):
        table = _objects(path, text, suffix == ".jsonl")
    else:
        lines = _tab_separated(text) if suffix == ".tsv" else _comma_separated(path, text)
        table = _fields(path, lines, columns, skip_short)
    if not table.rows:
        raise CuttlefishError(f"{path} has no rows")
    return table


def _text(path: Path) -> str:
    try:
        with OPENERS.get(path.suffix, open)(path, "rb") as file:
            return file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CuttlefishError(f"{path} is no text in UTF-8 (byte {error.start}): save it as UTF-8") from None
    except (OSError, EOFError, lzma.LZMAError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CuttlefishError(f"cannot read {path}: {reason}") from error


def _tab_separated(text: str) -> Iterator[tuple[int, list[str]]]:
    # Only "\n" ends a line: sentences contain other characters that str.splitlines would split at.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip("\r"):
            yield number, line.removesuffix("\r").split("\t")


def _comma_separated(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for fields in reader:
            if fields:
                yield reader.line_num, fields
    except csv.Error as error:
        raise CuttlefishError(f"{path}, line {reader.line_num}: {error}") from None


def _fields(
    path: Path, lines: Iterator[tuple[int, list[str]]], columns: Sequence[str] | None, skip_short: bool
) -> Table:
    columns = columns or next(lines, (1, []))[1]
    rows = []
    for number, fields in lines:
        if len(fields) == len(columns):
            rows.append((number, fields))
        elif not (skip_short and len(fields) < len(columns)):
            raise CuttlefishError(
                f"{path}, line {number}: {len(fields)} fields, and there are {len(columns)} columns "
                f"({', '.join(columns)})"
            )
    return Table(path, columns, rows)


def _objects(path: Path, text: str, by_line: bool) -> Table:
    """Return a table whose columns are the keys of the first object, which every object must have."""
    rows = list(_json_lines(path, text) if by_line else _json_list(path, text))
    columns = list(rows[0][1]) if rows else []
    for number, item in rows:
        if missing := [name for name in columns if name not in item]:
            raise CuttlefishError(f"{path}, line {number}: no {', '.join(missing)}, which the first row has")
    return Table(path, columns, [(number, [item[name] for name in columns]) for number, item in rows])


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, _object(path, number, _parsed(path, line, number))


def _json_list(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    content = _parsed(path, text, 1)
    if not isinstance(content, list):
        raise CuttlefishError(f"{path} must hold a list of objects, [{{...}}, ...]")
    for number, item in enumerate(content, 1):
        yield number, _object(path, number, item)


def _parsed(path: Path, text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        line += getattr(error, "lineno", 1) - 1
        raise CuttlefishError(f"{path}, line {line}: not JSON ({getattr(error, 'msg', error)})") from None


def _object(path: Path, line: int, item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise CuttlefishError(f"{path}, line {line}: not an object of columns and values, {{...}}")
    return item
