"""Overheads of profiling, ranks, the switch, checkpoints and data (paper, section 4.3), from run times where
these are evidence, from benches, and from a full-width run composed of both."""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any

from cuttlefish.display.format import counted, duration, ratio_of
from cuttlefish.evidence.benches import Bench, benches_of
from cuttlefish.evidence.records import Collection
from cuttlefish.planning.spec import Spec, TableSpec
from cuttlefish.record.fields import Record
from cuttlefish.report.claims.judge import judge
from cuttlefish.report.claims.verdict import Reading
from cuttlefish.report.tables.match_runs import CellRuns
from cuttlefish.report.tables.paper_values import Claims
from cuttlefish.report.tables.rows import Filling
from cuttlefish.report.tables.table import Block, Cell, Column, Table, text_cell

NAME = "overheads"
COLUMNS = [
    Column("part", "what", numeric=False),
    Column("seconds", "seconds", "s", better="lower"),
    Column("share", "share", "%", better="lower"),
    Column("of", "of", numeric=False),
    Column("paper", "the paper", numeric=False),
    Column("source", "from", numeric=False),
]
PARTS = ("profiling", "ranks", "switch", "checkpoint", "data")
OF_BENCHES = {
    "overhead": ("profile", "switch", "ranks", "data"),
    "ranks": ("ranks",),
    "checkpoints": ("checkpoint",),
}
"""Bench parts to show; a checkpoint relative to a long epoch, not to the short one of the overhead bench."""
MODEL = "resnet18"
STATED = {
    "profiling seconds": ("profiling-seconds", "{:.3g} s"),
    "profiling share": ("profiling-share", "{:.3g} %"),
    "ranks seconds": ("rank-seconds", "{:.3g} s an epoch"),
    "ranks share": ("rank-share", "{:.3g} %"),
}
"""The claim with the paper's figure, of MODEL on CIFAR-10, and its format."""
COMPOSED = "composed of measured step times and what narrow runs found; no run took it."
NOTE = (
    "Of runs: means over seeds, and shares of compute_seconds, which hold profiling, ranks and the switch, "
    "but neither checkpoints nor data. Of benches (make bench): what the machine named took with nothing "
    "beside it. The paper's seconds are of one V100, so ours stand beside them and are not judged by them."
)
NO_BENCH = "No bench on hardware of this scale yet: python -m scripts.bench steps ranks overhead checkpoints."


def overheads_table(
    spec: Spec,
    table: TableSpec,
    cells: Sequence[CellRuns],
    collection: Collection,
    benches: Sequence[Bench],
    claims: Claims,
    scale: str,
) -> Table:
    """Return the table: a block per cell and hardware (unless the scale's run times are no evidence), one per
    machine's benches, and one for composed runs."""
    own, found = benches_of(benches, scale), spec.scale(scale)
    timed = [] if found.times else cells
    blocks = [block for cell in timed for block in _run_blocks(spec, cell, claims, scale)]
    composed = _composed_block(spec, collection, own, claims) if scale == "reduced" else []
    title = table.title if scale == "paper" else f"{table.title} – {scale} scale"
    notes = [
        COMPOSED if composed else "",
        f"{found.times} They are not shown." if found.times else found.note,
        *table.notes,
        NOTE,
        "" if own else NO_BENCH,
    ]
    blocks += [*_bench_blocks(spec, own, claims), *composed]
    return Table(NAME, title, COLUMNS, blocks, list(filter(None, notes)), scale)


def _run_blocks(spec: Spec, cell: CellRuns, claims: Claims, scale: str) -> Iterator[Block]:
    run = cell.planned[0]
    title = f"{spec.called(run.model)} on {spec.called(run.data)}, {run.title}"
    for hardware, runs in cell.runs.items():
        fill, stated = Filling(runs, "" if scale == "paper" else scale), claims if run.model == MODEL else {}
        rows = [_run_row(fill, part, stated) for part in PARTS]
        yield Block(f"{title}, {counted(len(runs), 'run')} · {hardware}", rows)
    if not cell.runs:
        yield Block(title, [[Cell(cell.state), *(Cell() for _ in COLUMNS[1:])]])


def _run_row(fill: Filling, part: str, claims: Claims) -> list[Cell]:
    def seconds(record: Record) -> float | None:
        return (record.seconds or {}).get(part)

    def share(record: Record) -> float | None:
        ratio = ratio_of(seconds(record), record.compute_seconds)
        return None if ratio is None else 100 * ratio

    measured = fill.mean(seconds, duration), fill.mean(share, _percent)
    stated = _stated(claims, f"{part} seconds", f"{part} share")
    source = text_cell(", ".join(fill.keys), fill.keys)
    return [text_cell(part), *measured, text_cell("compute_seconds"), stated, source]


def _bench_blocks(spec: Spec, benches: Sequence[Bench], claims: Claims) -> Iterator[Block]:
    newest = {(bench.hardware, bench.what): bench for bench in benches}
    for hardware in dict.fromkeys(bench.hardware for bench in benches):
        own = [newest[hardware, what] for what in OF_BENCHES if (hardware, what) in newest]
        rows = [
            _bench_row(spec, bench, row, claims)
            for bench in own
            for row in bench.rows
            if _part(bench, row) in OF_BENCHES[bench.what]
        ]
        if rows:
            yield Block(f"Benches, each part by itself · {hardware}", rows)


def _part(bench: Bench, row: Mapping[str, Any]) -> str:
    return {"ranks": "ranks", "checkpoints": "checkpoint"}.get(bench.what) or row["part"]


def _bench_row(spec: Spec, bench: Bench, row: Mapping[str, Any], claims: Claims) -> list[Cell]:
    part = _part(bench, row)
    seconds = row[{"ranks": "ours_s", "overhead": "seconds", "checkpoints": "checkpoint_s"}[bench.what]]
    share = row.get("share", row.get("share_of_epoch"))
    known = isinstance(share, int | float) and isfinite(share)
    stated = {"profile": "profiling seconds", "ranks": "ranks seconds"}.get(part, "")
    shown = [Cell(_percent(100 * share), 100 * share), text_cell("an epoch")] if known else [Cell(), Cell()]
    paper = _stated(claims, stated if row.get("model") == MODEL and row.get("width") else "")
    label = text_cell(_label(spec, bench, part, row))
    return [label, Cell(duration(seconds), seconds), *shown, paper, text_cell(bench.name)]


def _label(spec: Spec, bench: Bench, part: str, row: Mapping[str, Any]) -> str:
    """Return `switch, 16 layers, width 64 (ResNet-18)`."""
    model, width = spec.called(str(row.get("model"))), row.get("width")
    if bench.what == "checkpoints":
        return f"checkpoint; {model}, width {width}, epochs of {row['images']:,} images"
    if bench.what == "ranks":
        how = f"width {width}" if width else f"weights {row.get('weights')}"
        return f"ranks of {row.get('layers')} layers, {how} ({model})"
    if row["per"] == "epoch":
        return f"{part} (width {width})"
    if "layers" in row:
        return f"{part}, {row['layers']} layers, width {width} ({model})"
    return f"{part}, forward only, width {width}: K = {row.get('k')} ({model})"


def _composed_block(
    spec: Spec, collection: Collection, benches: Sequence[Bench], claims: Claims
) -> list[Block]:
    """Return the shares of a whole run that the claims of section 4.3 compose."""
    parts = [part for part in ("profiling", "ranks") if STATED[f"{part} share"][0] in claims]
    verdicts = judge(collection, benches, [claims[STATED[f"{part} share"][0]] for part in parts])
    found = [(part, verdict.reduced) for part, verdict in zip(parts, verdicts, strict=True)]
    found = [(part, reading) for part, reading in found if reading.composed and reading.ours is not None]
    if not found:
        return []
    hardware = dict.fromkeys(name for _, reading in found for name in reading.hardware)
    title = f"{spec.called(MODEL)} at full width, a whole run, composed · {'; '.join(hardware)}"
    return [Block(title, [_composed_row(part, reading, claims) for part, reading in found])]


def _composed_row(part: str, reading: Reading, claims: Claims) -> list[Cell]:
    runs = tuple(reading.runs)
    share = Cell(_percent(reading.ours), reading.ours, "composed", runs)
    source = text_cell(", ".join([*runs, *reading.benches]), runs)
    return [text_cell(part), Cell(), share, text_cell("the run"), _stated(claims, f"{part} share"), source]


def _stated(claims: Claims, *what: str) -> Cell:
    """Return `3.98 s (P 4.3) · 0.16 % (P 4.3)`, as far as the claims contain it."""
    words = []
    for name, text in [STATED[one] for one in what if one in STATED]:
        if "value" in (claim := claims.get(name, {})):
            words.append(f"{text.format(claim['value'])} ({claim['source']})")
    return text_cell(" · ".join(words))


def _percent(value: float) -> str:
    return f"{value:.2g} %"
