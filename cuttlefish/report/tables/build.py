"""The paper's tables: one block of comparable rows per model, data set, recipe kind and hardware."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter

from cuttlefish.evidence.benches import Bench
from cuttlefish.evidence.records import Collection, Evidence, LeftOut
from cuttlefish.evidence.seeds import device_and_precision
from cuttlefish.evidence.selection import by_seed
from cuttlefish.planning.planned_run import PlannedRun
from cuttlefish.planning.spec import EQUAL, PUBLISHED, Scale, Spec, TableSpec
from cuttlefish.report.tables import overheads
from cuttlefish.report.tables.match_runs import CellRuns, cell_runs
from cuttlefish.report.tables.paper_values import Claims, paper_cell
from cuttlefish.report.tables.rows import columns_of, empty_cells, row_cells
from cuttlefish.report.tables.seeds_note import seeds_notes
from cuttlefish.report.tables.table import Block, Cell, Table

NOTES = [
    "Accuracy is the last epoch's; in brackets the best epoch's, chosen on test data as the public "
    "code does. ± is the standard deviation over seeds. Sizes stand under three definitions (all "
    "parameters, those that are not zero, bits stored), each with its own ratio to the full-rank "
    "model's in 32 bits; ratios of different columns do not compare. Hours are device time of all "
    "training work and of the method's own, every phase from scratch, on the hardware that the block "
    "names; the baseline's leave out logged ranks. Speed-up is over the baseline's runs of the same "
    "seeds, hardware and precision; none is credited to a network that computes as much as before."
]

METRIC_NOTES = [
    "Metrics are the last epoch's; in brackets the headline's best epoch, chosen on the evaluated set. ± is "
    "the standard deviation over seeds. Hours are device time of all training work and of the method's own, "
    "every phase from scratch, on the hardware that the block names. Speed-up is over the baseline's runs of "
    "the same seeds, hardware and precision; none is credited to a network that computes as much as before."
]


def all_tables(
    spec: Spec,
    planned: Iterable[PlannedRun],
    collection: Collection,
    claims: Claims,
    scale: str,
    benches: Sequence[Bench] = (),
) -> tuple[list[Table], list[LeftOut]]:
    """Return every table of the spec, and the planned records that do not count, each with its reason.

    Args:
        planned: The runs of (at least) these tables at `scale`.
        claims: By id, as in claims.yaml.
    """
    wanted = list(planned)
    tables, left_out = [], {}
    for table in map(spec.table, spec.table_names):
        cells, refused = cell_runs([run for run in wanted if run.table == table.name], collection)
        left_out = {item.path: item for item in refused} | left_out
        if table.name == overheads.NAME:
            tables.append(overheads.overheads_table(spec, table, cells, collection, benches, claims, scale))
        else:
            tables.append(_Builder(spec, table, claims, scale).build(cells))
    return tables, list(left_out.values())


class _Builder:
    """Builds one table at one scale. timed: whether the times of its runs may be compared."""

    def __init__(self, spec: Spec, table: TableSpec, claims: Claims, scale: str):
        self.spec, self.table, self.claims, self.scale = spec, table, claims, scale
        self.found = spec.scale_of(table.name, scale) if scale in spec.scales else Scale()
        self.timed = not self.found.times
        self.columns = columns_of(table.metrics, table.columns)
        self.notes = METRIC_NOTES if table.metrics else NOTES

    def build(self, cells: Sequence[CellRuns]) -> Table:
        name, title = self.table.name, self.table.title
        blocks = [block for group in _groups(cells) for block in self._blocks(*group)]
        title = title if self.scale == "paper" else f"{title} – {self.scale} scale"
        marked = [note for note in (self.found.note, self.found.times) if note]
        measured = seeds_notes(self.spec, cells) if self.table.metrics else []
        notes = [*marked, *self.table.notes, *measured, *self.notes]
        return Table(name, title, self.columns, blocks, notes, self.scale)

    def _blocks(self, model: str, data: str, kind: str, cells: list[CellRuns]) -> Iterator[Block]:
        """Yield a block for each kind of hardware.

        Where times are no evidence, for all CPUs (or GPUs) of one precision, whose accuracies and sizes
        compare.
        """
        budget = "recipes as published" if kind == PUBLISHED else "equal budget"
        title = f"{self.spec.called(model)} on {self.spec.called(data)}, {budget}"
        shared = attrgetter("hardware") if self.timed else device_and_precision
        runs = [run for cell in cells for run in cell.anywhere]
        for key in dict.fromkeys(map(shared, runs)) or [None]:
            pairs = [(cell, _first_of_each_seed(cell, shared, key)) for cell in cells]
            baseline = next((pool for cell, pool in pairs if cell.planned[0].baseline), [])
            rows = [self._row(cell, pool, baseline) for cell, pool in pairs]
            hardware = dict.fromkeys(run.hardware for run in runs if shared(run) == key)
            yield Block(" · ".join([title, *filter(None, [" and ".join(hardware)])]), rows)

    def _row(self, cell: CellRuns, runs: Sequence[Evidence], baseline: Sequence[Evidence]) -> list[Cell]:
        run = cell.planned[0]
        own = (run.row, run.model, run.data)
        stated = [item for item in self.table.paper if (item.row, item.model, item.data) == own]
        paper = paper_cell(stated, self.claims, runs, baseline, self.scale)
        if not runs:
            why = "run on other hardware" if cell.runs else cell.state
            cells = empty_cells(run.title, why, self.columns)
            return [*cells[:-2], paper, cells[-1]]
        mark, timed = "" if self.scale == "paper" else self.scale, baseline if self.timed else []
        options = {"metrics": self.table.metrics, "further": self.table.columns}
        return row_cells(run.title, runs, timed, run.baseline, paper, mark, **options)


def _groups(cells: Sequence[CellRuns]) -> Iterator[tuple[str, str, str, list[CellRuns]]]:
    """Yield (model, data, kind, cells) in order of first appearance, published before equal budget."""
    places: dict[tuple[str, str], list[CellRuns]] = {}
    for cell in cells:
        places.setdefault((cell.planned[0].model, cell.planned[0].data), []).append(cell)
    for (model, data), found in places.items():
        for kind in (PUBLISHED, EQUAL):
            if own := [cell for cell in found if kind in cell.planned[0].kinds]:
                yield model, data, kind, own


def _first_of_each_seed(cell: CellRuns, shared: Callable[[Evidence], str], key: str | None) -> list[Evidence]:
    """Return the cell's runs in the block of that key."""
    return list(by_seed(run for run in cell.anywhere if shared(run) == key).values())
