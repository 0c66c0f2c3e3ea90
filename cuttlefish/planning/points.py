"""The points of a row's sweep at a scale, as command-line arguments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from cuttlefish.planning.spec import EQUAL, PUBLISHED, Row, Scale, Spec, TableSpec

SHARED = ("model", "data")
"""Keys that tables sweep over; any other key is a row's own."""
Values = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Point:
    """One cell before its seed.

    Attributes:
        words: Arguments for `python run.py`, without the seed and the size to match.
        match: The point whose finished run of the same seed sets the size.
    """

    table: str
    row: Row
    scale: str
    kinds: tuple[str, ...]
    values: Values
    words: tuple[str, ...]
    match: Point | None = None

    @property
    def own(self) -> Values:
        return tuple((key, value) for key, value in self.values if key not in SHARED)


def points(spec: Spec, table: TableSpec, scale: str) -> Iterator[Point]:
    """Yield every cell of a table at a scale, in the table's order."""
    for row in table.rows:
        if scale not in row.scales:
            continue
        sweep = _narrowed({**table.sweep, **row.sweep}, spec.scale_of(table.name, scale))
        for values in product(*sweep.values()):
            yield _point(spec, table.name, row, scale, tuple(zip(sweep, map(str, values), strict=True)))


def _point(spec: Spec, table: str, row: Row, scale_name: str, values: Values) -> Point:
    home, run = (table, row) if row.of is None else _of(spec, row.of)
    scale = spec.scale_of(home, scale_name)
    swept = [f"{key}={value}" for key, value in values]
    words = [f"experiment={home}", *run.words, *swept, *run.at.get(scale_name, []), *scale.words]
    match = None
    if run.match and scale.match:
        shared = tuple((key, value) for key, value in values if key in SHARED)
        match = _point(spec, home, spec.table(home).row(run.match), scale_name, shared)
    return Point(table, row, scale_name, _kinds(row, scale), values, _last_of_each_key(words), match)


def _last_of_each_key(words: Iterable[str]) -> tuple[str, ...]:
    return tuple({word.partition("=")[0]: word for word in words}.values())


def _of(spec: Spec, name: str) -> tuple[str, Row]:
    """Return the row named by `table1/lc`, and its table."""
    table, _, row = name.partition("/")
    return table, spec.table(table).row(row)


def _kinds(row: Row, scale: Scale) -> tuple[str, ...]:
    """Return the row's kinds; a scale that replaces the recipe has no published recipe."""
    return (scale.kind,) if scale.kind else tuple(kind for kind in (PUBLISHED, EQUAL) if kind in row.kinds)


def _narrowed(sweep: dict[str, list], scale: Scale) -> dict[str, list]:
    return {
        key: [value for value in values if value in scale.sweep.get(key, values)]
        for key, values in sweep.items()
    }
