"""What each table and figure is made of, as tables.yaml says.

Reads YAML only; composing a row into a config is `cuttlefish/plan`.
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
    """One row of a table. kinds: the comparisons it belongs to. words: its command line behind
    `experiment=<table>`; at: words that take their place at a scale. sweep: override key → values, beside or
    in place of the table's. match: the row whose finished run of the same seed sets the size. baseline: the
    row that hours are compared with. of: the row of another table, as in table1/lc, whose runs these are."""

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
class Waiting:
    """Rows that no config can run yet, by model, and why."""

    reason: str
    data: list[str]
    models: dict[str, list[str]]


@dataclass(frozen=True)
class Stated:
    """What the paper states of one row: the claim that holds the value, and which of our quantities it is."""

    row: str
    model: str
    data: str
    claim: str
    quantity: str


@dataclass(frozen=True)
class TableSpec:
    title: str
    name: str = ""
    sweep: dict[str, list[str]] = field(default_factory=dict)
    paper: list[Stated] = field(default_factory=list)
    waiting: Waiting | None = None
    notes: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    @property
    def is_figure(self) -> bool:
        return self.name.startswith("figure")

    def row(self, name: str) -> Row:
        for row in self.rows:
            if row.name == name:
                return row
        raise CuttlefishError(
            f"{self.name} has no row {name}{choose_from(name, [row.name for row in self.rows])}"
        )


@dataclass(frozen=True)
class OrderBlock:
    """Runs of one table that are made one after the other: seeds, data, models, rows, from the outside in."""

    table: str
    seeds: list[int]
    data: list[str]
    models: list[str]
    rows: list[str]

    def places(self) -> Iterator[tuple[str, int, str, str, str]]:
        """(table, seed, data, model, row) in this order."""
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
        """`cifar100`: the value of a description of runs that is not run at this scale; empty where all
        are."""
        return next(
            (
                str(where[axis])
                for axis, values in self.sweep.items()
                if isinstance(where.get(axis), str) and where[axis] not in values
            ),
            "",
        )


@dataclass(frozen=True)
class Spec:
    """names: how models and data sets are written."""

    scales: dict[str, Scale]
    tables: dict[str, TableSpec]
    names: dict[str, str] = field(default_factory=dict)

    def called(self, name: str) -> str:
        return self.names.get(name, name)

    def table(self, name: str) -> TableSpec:
        if name not in self.tables:
            raise CuttlefishError(
                f"there is no table or figure {name!r} made of runs{choose_from(name, self.tables)}"
            )
        return self.tables[name]

    def scale(self, name: str) -> Scale:
        if name not in self.scales:
            raise CuttlefishError(f"there is no scale {name!r}{choose_from(name, self.scales)}")
        return self.scales[name]

    def with_words(self, name: str, words: Sequence[str]) -> "Spec":
        """Return the specification with further words for each run at a scale, which must leave it the same run."""
        for word in words:
            key = word.partition("=")[0]
            if key not in NOT_IN_KEY and not key.startswith("logger."):
                raise CuttlefishError(
                    f"{word} would make other runs than those of the tables; only "
                    f"{', '.join(sorted(NOT_IN_KEY))} can be set"
                )
        scale = self.scale(name)
        return replace(self, scales={**self.scales, name: replace(scale, words=[*scale.words, *words])})


def read_spec(file: Path) -> Spec:
    """The specification in tables.yaml. Raises CuttlefishError for an unknown key, a wrong type or a name of
    no row."""
    content = read_mapping(file)
    tables = {name: _with_rows(name, table, content) for name, table in (content.get("tables") or {}).items()}
    spec = convert({**content, "tables": tables}, Spec, file.name)
    for table in spec.tables.values():
        for named in [
            *(stated.row for stated in table.paper),
            *(row.match for row in table.rows if row.match),
        ]:
            table.row(named)
    for name, scale in spec.scales.items():
        for block in scale.order:
            _check_block(block, spec.table(block.table), name)
    return spec


def read_scales(file: Path) -> dict[str, Scale]:
    """Those of tables.yaml alone; nothing where there is no such file. Raises CuttlefishError as `read_spec`
    does."""
    return (
        convert(read_mapping(file).get("scales"), dict[str, Scale], f"{file.name}.scales")
        if file.exists()
        else {}
    )


def _with_rows(name: str, table: Any, content: Mapping[str, Any]) -> Any:
    """A table's content with its name, and its rows as a list in which each has its name and what it takes
    from another row."""
    if not isinstance(table, Mapping):
        return table
    rows = {
        row: _whole(f"tables.{name}.rows.{row}", given, content)
        for row, given in (table.get("rows") or {}).items()
    }
    return {**table, "name": name, "rows": [{"name": row, **given} for row, given in rows.items()]}


def _check_block(block: OrderBlock, table: TableSpec, scale: str) -> None:
    """Raise CuttlefishError if the order of value names a row, model or data set that the table does not have
    at the scale."""
    for row in block.rows:
        if scale not in table.row(row).scales:
            raise CuttlefishError(
                f"the order of value at scale {scale} names {table.name}, row {row}, which is not run there"
            )
    for axis, values in (("model", block.models), ("data", block.data)):
        for value in values:
            if value not in table.sweep.get(axis, []):
                there = table.sweep.get(axis, [])
                raise CuttlefishError(
                    f"the order of value at scale {scale} names {axis}={value}, which {table.name} has not"
                    f"{choose_from(value, there)}"
                )


def _whole(where: str, given: Any, content: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row's content with what holds for it unless it says otherwise: all scales, and the labels of the row
    that it is `of`."""
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
        raise CuttlefishError(
            f"{where} is of {given['of']}, and {table} has no such row{choose_from(row, rows)}"
        )
    return {key: rows[row][key] for key in ("label", "kinds", "scales", "baseline") if key in rows[row]}


def read_mapping(path: Path) -> dict[str, Any]:
    """A YAML file's mapping. Raises CuttlefishError with one sentence for a file that is none."""
    try:
        content = yaml.load(
            path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        )
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CuttlefishError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise CuttlefishError(f"{path} must hold a mapping")
    return content
