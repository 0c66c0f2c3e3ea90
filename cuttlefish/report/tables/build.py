"""The paper's tables: one block of comparable rows per model, data set, recipe kind and hardware."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from cuttlefish.evidence.benches import Bench
from cuttlefish.evidence.records import Collection, Evidence, LeftOut
from cuttlefish.evidence.seeds import device_and_precision
from cuttlefish.evidence.selection import by_seed
from cuttlefish.planning.planned_run import PlannedRun
from cuttlefish.planning.spec import EQUAL, PUBLISHED, Spec, TableSpec
from cuttlefish.report.tables import overheads
from cuttlefish.report.tables.match_runs import CellRuns, cell_runs
from cuttlefish.report.tables.paper_values import Claims, paper_cell
from cuttlefish.report.tables.rows import COLUMNS, METRIC_COLUMNS, empty_cells, row_cells, waiting_cells
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
    for table in spec.tables.values():
        if table.is_figure:
            continue
        cells, refused = cell_runs([run for run in wanted if run.table == table.name], collection)
        left_out = {item.path: item for item in refused} | left_out
        if table.name == overheads.NAME:
            tables.append(overheads.overheads_table(spec, table, cells, collection, benches, claims, scale))
        else:
            tables.append(_table(spec, table, cells, claims, scale))
    return tables, list(left_out.values())


def _table(spec: Spec, table: TableSpec, cells: Sequence[CellRuns], claims: Claims, scale: str) -> Table:
    if table.waiting:
        return Table(table.name, table.title, COLUMNS, list(_waiting_blocks(spec, table)), [], scale)
    blocks = [block for group in _groups(cells) for block in _blocks(spec, table, *group, claims, scale)]
    title = table.title if scale == "paper" else f"{table.title} – {scale} scale"
    found = spec.scale_of(table.name, scale) if scale in spec.scales else None
    marked = [note for note in (found.note, found.times) if note] if found else []
    columns, notes = (METRIC_COLUMNS, METRIC_NOTES) if table.metrics else (COLUMNS, NOTES)
    return Table(table.name, title, columns, blocks, [*marked, *table.notes, *notes], scale)


def _groups(cells: Sequence[CellRuns]) -> Iterator[tuple[str, str, str, list[CellRuns]]]:
    """Yield (model, data, kind, cells) in order of first appearance, published before equal budget."""
    places = dict.fromkeys((cell.planned[0].model, cell.planned[0].data) for cell in cells)
    for model, data in places:
        for kind in (PUBLISHED, EQUAL):
            own = [
                cell
                for cell in cells
                if (cell.planned[0].model, cell.planned[0].data) == (model, data)
                and kind in cell.planned[0].kinds
            ]
            if own:
                yield model, data, kind, own


def _blocks(
    spec: Spec,
    table: TableSpec,
    model: str,
    data: str,
    kind: str,
    cells: list[CellRuns],
    claims: Claims,
    scale: str,
) -> Iterator[Block]:
    budget = "recipes as published" if kind == PUBLISHED else "equal budget"
    title = f"{spec.called(model)} on {spec.called(data)}, {budget}"
    timed = scale not in spec.scales or not spec.scale_of(table.name, scale).times
    shared = _hardware if timed else device_and_precision
    runs = [run for cell in cells for own in cell.runs.values() for run in own]
    for key in dict.fromkeys(map(shared, runs)) or [None]:
        pools = [_pool(cell, lambda run, key=key: shared(run) == key) for cell in cells]
        baseline = next(
            (pool for cell, pool in zip(cells, pools, strict=True) if cell.planned[0].baseline), []
        )
        rows = [
            _row(table, cell, pool, baseline, claims, scale, timed)
            for cell, pool in zip(cells, pools, strict=True)
        ]
        hardware = dict.fromkeys(run.hardware for run in runs if shared(run) == key)
        yield Block(" · ".join([title, *filter(None, [" and ".join(hardware)])]), rows)


def _hardware(run: Evidence) -> str:
    return run.hardware


def _pool(cell: CellRuns, counts: Callable[[Evidence], bool]) -> list[Evidence]:
    """Return the cell's runs in a block, of each seed the one started first.

    A block is of one kind of hardware; where times are no evidence, of all CPUs (or GPUs) of one precision,
    whose accuracies and sizes compare.
    """
    return list(by_seed(run for own in cell.runs.values() for run in own if counts(run)).values())


def _row(
    table: TableSpec,
    cell: CellRuns,
    runs: Sequence[Evidence],
    baseline: Sequence[Evidence],
    claims: Claims,
    scale: str,
    timed: bool,
) -> list[Cell]:
    run = cell.planned[0]
    stated = [
        item for item in table.paper if (item.row, item.model, item.data) == (run.row, run.model, run.data)
    ]
    paper = paper_cell(stated, claims, runs, baseline, scale)
    if not runs:
        why = "run on other hardware" if cell.runs else cell.state
        cells = empty_cells(run.title, why, METRIC_COLUMNS if table.metrics else COLUMNS)
        return [*cells[:-2], paper, cells[-1]]
    mark = "" if scale == "paper" else scale
    return row_cells(run.title, runs, baseline if timed else [], run.baseline, paper, mark, table.metrics)


def _waiting_blocks(spec: Spec, table: TableSpec) -> Iterator[Block]:
    waiting = table.waiting
    for data in waiting.data:
        for model, labels in waiting.models.items():
            yield Block(
                f"{model} on {spec.called(data)}", [waiting_cells(label, waiting.reason) for label in labels]
            )
