"""Read from tables.yaml which runs each table and figure consists of.

Reads YAML only; composing a row into a config is the job of `cuttlefish/planning`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from cuttlefish.config.identity import NOT_IN_KEY
from cuttlefish.config.suggest import choose_from
from cuttlefish.config.validate import convert
from cuttlefish.errors import CuttlefishError
from cuttlefish.evidence.selection import Where

PUBLISHED, EQUAL = "published", "equal budget"


@dataclass(frozen=True)
class Row:
    """One row of a table. kinds: the comparisons it belongs to. words: its arguments after
    `experiment=<table>`; at: arguments that replace them at a scale. sweep: override key → values, added to
    or replacing the table's. match: the row whose finished run of the same seed sets the size. baseline: the
    row that hours are compared with. of: the row of another table, as in table1/lc, whose runs this row
    shows."""

    label: str
    kinds: list[str]
    scales: list[str]
    name: str = ""
    sweep: dict[str, list[Any]] = field(default_factory=dict)
    match: str | None = None
    words: list[str] = field(default_factory=list)
    at: dict[str, list[str]] = field(default_factory=dict)
    baseline: bool = False
    of: str | None = None


@dataclass(frozen=True)
class Stated:
    """A value of a row stated in the paper: the claim that holds it, and which of our quantities it is."""

    row: str
    model: str
    data: str
    claim: str
    quantity: str


@dataclass(frozen=True)
class TableSpec:
    """One table or figure. sweep: model and data of its rows. scales: how it is run at a scale where that
    differs from the other tables. metrics: whether it shows the task's own metrics, and trainable parameters,
    in place of accuracy. columns: further columns, by key (report/tables/rows.py)."""

    title: str
    name: str = ""
    sweep: dict[str, list[str]] = field(default_factory=dict)
    scales: dict[str, "Scale"] = field(default_factory=dict)
    metrics: bool = False
    columns: list[str] = field(default_factory=list)
    paper: list[Stated] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    @property
    def is_figure(self) -> bool:
        return self.name.startswith("figure")

    def row(self, name: str) -> Row:
        rows = {row.name: row for row in self.rows}
        if name not in rows:
            raise CuttlefishError(f"{self.name} has no row {name}{choose_from(name, rows)}")
        return rows[name]


@dataclass(frozen=True)
class OrderBlock:
    """Runs of one table executed together: seeds, data, models, rows, from the outer to the inner loop."""

    table: str
    seeds: list[int]
    data: list[str]
    models: list[str]
    rows: list[str]

    def places(self) -> Iterator[tuple[str, int, str, str, str]]:
        """Return (table, seed, data, model, row) in this order, data and model as they are chosen."""
        return product([self.table], self.seeds, self.data, self.models, self.rows)


@dataclass(frozen=True)
class Scale:
    """How every row is run at one scale, and in which order of value; see tables.yaml."""

    words: list[str] = field(default_factory=list)
    sweep: dict[str, list[str]] = field(default_factory=dict)
    kind: str | None = None
    match: bool = True
    note: str = ""
    times: str = ""
    order: list[OrderBlock] = field(default_factory=list)

    def left_out(self, where: Where) -> str:
        """Return the value of a description that this scale does not run, as `cifar100`; else nothing."""
        for axis, values in self.sweep.items():
            if isinstance(where.get(axis), str) and where[axis] not in values:
                return where[axis]
        return ""


@dataclass(frozen=True)
class Spec:
    """The content of tables.yaml. names: display names of models and data sets."""

    scales: dict[str, Scale]
    tables: dict[str, TableSpec]
    names: dict[str, str] = field(default_factory=dict)

    @property
    def table_names(self) -> list[str]:
        """The names of tables, without figures."""
        return [name for name, table in self.tables.items() if not table.is_figure]

    def called(self, name: str) -> str:
        return self.names.get(name, name)

    def table(self, name: str) -> TableSpec:
        if name not in self.tables:
            known = choose_from(name, self.tables)
            raise CuttlefishError(f"there is no table or figure {name!r} made of runs{known}")
        return self.tables[name]

    def scale(self, name: str) -> Scale:
        if name not in self.scales:
            raise CuttlefishError(f"there is no scale {name!r}{choose_from(name, self.scales)}")
        return self.scales[name]

    def scale_of(self, table: str, name: str) -> Scale:
        """Return how a table is run at a scale: in its own way, or as all tables are."""
        own = self.tables[table].scales if table in self.tables else {}
        return own.get(name) or self.scale(name)

    def with_words(self, name: str, words: Sequence[str]) -> "Spec":
        """Return the specification with extra arguments at a scale, which must not change the run."""
        for word in words:
            key = word.partition("=")[0]
            if key not in NOT_IN_KEY and not key.startswith("logger."):
                raise CuttlefishError(
                    f"{word} would make other runs than those of the tables; only "
                    f"{', '.join(sorted(NOT_IN_KEY))} can be set"
                )
        scales, tables = {**self.scales, name: self.scale(name)}, dict(self.tables)
        for key, table in tables.items():
            tables[key] = replace(table, scales=_with_words(table.scales, name, words))
        return replace(self, scales=_with_words(scales, name, words), tables=tables)


def _with_words(scales: Mapping[str, Scale], name: str, words: Sequence[str]) -> dict[str, Scale]:
    """Return the scales, of which the one called `name` has further words."""
    return {
        key: replace(scale, words=[*scale.words, *words]) if key == name else scale
        for key, scale in scales.items()
    }


def read_spec(file: Path) -> Spec:
    """Read tables.yaml. Raises CuttlefishError for an unknown key, a wrong type or an unknown row name."""
    content = read_mapping(file)
    tables = {name: _with_rows(name, table, content) for name, table in (content.get("tables") or {}).items()}
    spec = convert({**content, "tables": tables}, Spec, file.name)
    for table in spec.tables.values():
        for named in [stated.row for stated in table.paper] + [row.match for row in table.rows if row.match]:
            table.row(named)
    for name, scale in spec.scales.items():
        for block in scale.order:
            _check_block(block, spec.table(block.table), name)
    return spec


def read_scales(file: Path) -> dict[str, Scale]:
    """Read the scales of tables.yaml; empty without the file. Raises CuttlefishError as `read_spec` does."""
    if not file.exists():
        return {}
    return convert(read_mapping(file).get("scales"), dict[str, Scale], f"{file.name}.scales")


def _with_rows(name: str, table: Any, content: Mapping[str, Any]) -> Any:
    """Return a table's content with its name, and its rows as a list with names and inherited values."""
    if not isinstance(table, Mapping):
        return table
    rows = {
        row: _whole(f"tables.{name}.rows.{row}", given, content)
        for row, given in (table.get("rows") or {}).items()
    }
    return {**table, "name": name, "rows": [{"name": row, **given} for row, given in rows.items()]}


def _check_block(block: OrderBlock, table: TableSpec, scale: str) -> None:
    """Raise CuttlefishError if the order of value names a row, model or data set absent from the table."""
    order = f"the order of value at scale {scale} names"
    for row in block.rows:
        if scale not in table.row(row).scales:
            raise CuttlefishError(f"{order} {table.name}, row {row}, which is not run there")
    for axis, values in (("model", block.models), ("data", block.data)):
        there = table.sweep.get(axis, [])
        for value in values:
            if value not in there:
                known = choose_from(value, there)
                raise CuttlefishError(f"{order} {axis}={value}, which {table.name} has not{known}")


def _whole(where: str, given: Any, content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row's content with defaults filled in: all scales, and the labels of the row in `of`."""
    if not isinstance(given, Mapping):
        raise CuttlefishError(f"{where} must be a mapping, not {given!r}")
    row = {"scales": list(content.get("scales") or {}), **_labels_of(where, given, content), **given}
    for kind in row.get("kinds") or []:
        if kind not in (PUBLISHED, EQUAL):
            raise CuttlefishError(f"{where}: kinds are {PUBLISHED} and {EQUAL}, not {kind!r}")
    return row


def _labels_of(where: str, given: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    if "of" not in given:
        return {}
    table, _, row = str(given["of"]).partition("/")
    rows = (content["tables"].get(table) or {}).get("rows") or {}
    if row not in rows:
        known = choose_from(row, rows)
        raise CuttlefishError(f"{where} is of {given['of']}, and {table} has no such row{known}")
    return {key: rows[row][key] for key in ("label", "kinds", "scales", "baseline") if key in rows[row]}


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML mapping. Raises CuttlefishError if the file contains none."""
    try:
        content = yaml.load(
            path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        )
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CuttlefishError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise CuttlefishError(f"{path} must hold a mapping")
    return content
