"""The paper's tables: one block of comparable rows per model, data set, recipe kind and hardware."""

from collections.abc import Iterable, Iterator, Sequence

from cuttlefish.evidence.benches import Bench
from cuttlefish.evidence.records import Collection, Evidence, LeftOut
from cuttlefish.evidence.seeds import device_and_precision
from cuttlefish.evidence.selection import by_seed
from cuttlefish.plan.planned_run import PlannedRun
from cuttlefish.plan.spec import EQUAL, PUBLISHED, Spec, TableSpec
from cuttlefish.report.tables import overheads
from cuttlefish.report.tables.match_runs import CellRuns, cell_runs
from cuttlefish.report.tables.paper_values import Claims, paper_cell
from cuttlefish.report.tables.rows import COLUMNS, empty_cells, row_cells, waiting_cells
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
    found = spec.scales.get(scale)
    marked = [note for note in (found.note, found.times) if note] if found else []
    return Table(table.name, title, COLUMNS, blocks, [*marked, *table.notes, *NOTES], scale)


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
    timed = _timed(spec, scale)
    for pool in _pools(cells, timed) or [[]]:
        baseline = next((_runs(cell, pool) for cell in cells if cell.planned[0].baseline), [])
        rows = [_row(table, cell, pool, baseline, claims, scale, timed) for cell in cells]
        yield Block(" · ".join([title, *filter(None, [" and ".join(pool)])]), rows)


def _pools(cells: Sequence[CellRuns], timed: bool) -> list[list[str]]:
    """Return the hardware of each block: one kind a block; where times are no evidence, all CPUs (or GPUs) of
    one precision, whose accuracies and sizes compare.
    """
    pools: dict[object, list[str]] = {}
    for cell in cells:
        for hardware, runs in cell.runs.items():
            pool = pools.setdefault(hardware if timed else device_and_precision(runs[0]), [])
            pool += [] if hardware in pool else [hardware]
    return list(pools.values())


def _runs(cell: CellRuns, pool: Sequence[str]) -> list[Evidence]:
    """Return the cell's runs on that hardware, of each seed the one started first."""
    return list(by_seed(run for hardware in pool for run in cell.runs.get(hardware, [])).values())


def _timed(spec: Spec, scale: str) -> bool:
    """Return whether the times of a scale's runs may be compared."""
    return scale not in spec.scales or not spec.scale(scale).times


def _row(
    table: TableSpec,
    cell: CellRuns,
    pool: Sequence[str],
    baseline: Sequence[Evidence],
    claims: Claims,
    scale: str,
    timed: bool,
) -> list[Cell]:
    run, runs = cell.planned[0], _runs(cell, pool)
    stated = [
        item for item in table.paper if (item.row, item.model, item.data) == (run.row, run.model, run.data)
    ]
    paper = paper_cell(stated, claims, runs, baseline, scale)
    if not runs:
        cells = empty_cells(run.title, "run on other hardware" if cell.runs else cell.state)
        return [*cells[:-2], paper, cells[-1]]
    return row_cells(
        run.title, runs, baseline if timed else [], run.baseline, paper, "" if scale == "paper" else scale
    )


def _waiting_blocks(spec: Spec, table: TableSpec) -> Iterator[Block]:
    waiting = table.waiting
    for data in waiting.data:
        for model, labels in waiting.models.items():
            yield Block(
                f"{model} on {spec.called(data)}", [waiting_cells(label, waiting.reason) for label in labels]
            )
