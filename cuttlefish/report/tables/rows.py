"""The cells of a row, from the runs of one cell of the plan."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cuttlefish.display.format import count, short_count, times
from cuttlefish.evidence import quantities as q
from cuttlefish.evidence.records import Evidence
from cuttlefish.evidence.seeds import Quantity, over_seeds
from cuttlefish.record.fields import Record
from cuttlefish.report.tables.table import Cell, Column, text_cell

COLUMNS = [
    Column("method", "method", numeric=False),
    Column("seeds", "seeds"),
    Column("accuracy", "accuracy, last epoch (best)", "%", better="higher"),
    Column("params_total", "parameters", better="lower"),
    Column("params_nonzero", "nonzero parameters", better="lower"),
    Column("stored", "stored", "MiB", better="lower"),
    Column("macs", "MACs", better="lower"),
    Column("switch_epoch", "E"),
    Column("hours", "hours", "h", better="lower"),
    Column("speedup", "speed-up", "×", better="higher"),
    Column("paper", "the paper", numeric=False),
    Column("runs", "runs", numeric=False),
]
METRIC_COLUMNS = [
    *COLUMNS[:2],
    Column("metrics", "metrics, last epoch (best)", "%", better="higher"),
    Column("params_total", "parameters", better="lower"),
    Column("params_trainable", "trainable parameters", better="lower"),
    *(column for column in COLUMNS[6:]),
]
"""Columns of a table whose tasks have metrics of their own."""


@dataclass(frozen=True)
class Filling:
    """Converts values into cells with their runs and mark."""

    runs: Sequence[Evidence]
    mark: str

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(run.record.run_key for run in self.runs)

    def cell(self, text: str, value: float | str | None) -> Cell:
        return Cell() if value is None else Cell(text, value, self.mark, self.keys)

    def mean(self, quantity: Quantity, show: Callable[[float], str], beside: str = "") -> Cell:
        """Return mean ± deviation of a quantity that is no time, with a text beside it."""
        found = over_seeds(self.runs, quantity, any_machine=True)
        return self.cell(f"{found.text(show)}{beside}", found.mean) if found else Cell()

    def ratio(self, quantity: Quantity) -> str:
        return f" ({times(_mean(self.runs, quantity))})"

    def best(self, quantity: Quantity) -> str:
        found = _mean(self.runs, quantity)
        return "" if found is None else f" ({found:.2f})"

    def hours(self, quantity: Quantity) -> Cell:
        """Return mean ± deviation of a time; unknown for runs of several machines."""
        found = over_seeds(self.runs, quantity) if len({run.hardware for run in self.runs}) == 1 else None
        return self.cell(found.text(lambda hours: f"{hours:.3g} h"), found.mean) if found else Cell()


def row_cells(
    label: str,
    runs: Sequence[Evidence],
    baseline: Sequence[Evidence],
    is_baseline: bool,
    paper: Cell,
    mark: str,
    metrics: bool = False,
    further: Sequence[str] = (),
) -> list[Cell]:
    """Return the cells of one row with runs.

    Args:
        baseline: The runs its hours are compared with.
        metrics: Whether the columns are `METRIC_COLUMNS`.
        further: Keys of the table's further columns (`FURTHER`).
    """
    fill = Filling(runs, mark)
    return [
        Cell(label, label, mark, fill.keys),
        Cell(str(len(runs)), len(runs), runs=fill.keys),
        *(_metrics_and_sizes(fill) if metrics else _accuracy_and_sizes(fill)),
        fill.mean(_of("macs_final"), short_count, fill.ratio(q.fewer_macs)),
        fill.mean(_of("switch_epoch"), lambda epoch: f"{epoch:.3g}"),
        *(FURTHER[key][1](fill) for key in further),
        fill.hours(q.hours_as_baseline if is_baseline else q.hours),
        Cell() if is_baseline else _speedup(fill, baseline),
        paper,
        Cell(", ".join(fill.keys), len(runs), "", fill.keys),
    ]


def columns_of(metrics: bool, further: Sequence[str] = ()) -> list[Column]:
    """Return the columns of a table; further ones stand before the hours."""
    columns = METRIC_COLUMNS if metrics else COLUMNS
    place = [column.key for column in columns].index("hours")
    return [*columns[:place], *(FURTHER[key][0] for key in further), *columns[place:]]


def empty_cells(label: str, why: str, columns: Sequence[Column] = COLUMNS) -> list[Cell]:
    """Return the cells of a row without runs, stating the reason."""
    return [text_cell(label), *(Cell() for _ in columns[2:]), Cell(why)]


def _accuracy_and_sizes(fill: Filling) -> list[Cell]:
    return [
        fill.mean(_of("score"), "{:.2f}".format, fill.best(_of("score_best"))),
        fill.mean(_of("params_total"), count, fill.ratio(q.compression)),
        fill.mean(_of("params_nonzero"), count, fill.ratio(q.compression_nonzero)),
        fill.mean(_stored, lambda size: f"{size:.3g} MiB", fill.ratio(q.compression_stored)),
    ]


def _metrics_and_sizes(fill: Filling) -> list[Cell]:
    return [
        _metrics(fill),
        fill.mean(_of("params_total"), count, fill.ratio(q.compression)),
        fill.mean(_of("params_trainable"), count),
    ]


def _metrics(fill: Filling) -> Cell:
    """Return the task's metrics, the headline first and with its best epoch: `f1 88.9 ± 0.4 (89.2)`."""
    first = fill.runs[0].record
    names = sorted(first.metrics or {}, key=lambda name: (name != first.metric, name))
    texts, headline = [], None
    for name in names:
        found = over_seeds(fill.runs, _metric("metrics", name), any_machine=True)
        if found:
            beside = fill.best(_metric("metrics_best", name)) if name == first.metric else ""
            texts.append(f"{name} {found.text('{:.2f}'.format)}{beside}")
            headline = found.mean if headline is None else headline
    return fill.cell(", ".join(texts), headline)


def _metric(field: str, name: str) -> Quantity:
    return lambda record: (getattr(record, field) or {}).get(name)


def _top5(fill: Filling) -> Cell:
    return fill.mean(_metric("metrics", "accuracy_top5"), "{:.2f}".format)


def _on_floor(fill: Filling) -> Cell:
    """Return how many of the factorized layers have the floor's rank: `10 of 10`; unknown without a floor."""
    known = [run for run in fill.runs if run.record.on_floor is not None]
    pairs = [(len(run.record.on_floor), len(run.record.ranks or {})) for run in known]
    text = ", ".join(f"{count} of {layers}" for count, layers in dict.fromkeys(pairs))
    return fill.cell(text, pairs[0][0] if pairs else None)


FURTHER: dict[str, tuple[Column, Callable[[Filling], Cell]]] = {
    "accuracy_top5": (Column("accuracy_top5", "top-5 accuracy", "%", better="higher"), _top5),
    "on_floor": (Column("on_floor", "ranks on their floor"), _on_floor),
}
"""Columns that single tables have beside the others, and what fills them."""


def _speedup(fill: Filling, baseline: Sequence[Evidence]) -> Cell:
    """Return the speed-up; a network with as many MACs as before is never called faster."""
    faster = q.speedup(fill.runs, baseline)
    as_many = all(run.record.macs_final >= run.record.macs_full for run in fill.runs)
    if faster is not None and faster > 1 and as_many:
        return Cell("none: as many MACs", None, "", fill.keys)
    return fill.cell(times(faster), faster)


def _of(name: str) -> Quantity:
    return lambda record: getattr(record, name)


def _stored(record: Record) -> float:
    return record.params_stored_bits / 8 / 2**20


def _mean(runs: Sequence[Evidence], quantity: Quantity) -> float | None:
    found = over_seeds(runs, quantity, any_machine=True)
    return found.mean if found else None
