"""One-screen summaries of a run, and of a run beside full rank. At most 100 columns wide."""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from cuttlefish.display.format import (
    UNKNOWN,
    count,
    duration,
    number,
    one_line,
    percent,
    ratio_of,
    short_count,
    times,
)
from cuttlefish.display.screen import cells, facts_table, plain_table, profile_table, rank_table, switch_words
from cuttlefish.record.fields import Record

WIDTH = 100
WIDEST = 65
"""Columns of a rank table that leave room beside it."""
Row = Mapping[str, Any]


def run_summary(record: Record, profile: Row | None, rank_rows: Sequence[Row]) -> RenderableType:
    """Show profile, ranks, switch, size, accuracy and times of one run."""
    return Group(_headline(record), _screen(record, profile, rank_rows, facts_table(record)))


def comparison_summary(
    full: Record,
    cuttlefish: Record,
    profile: Row | None = None,
    rank_rows: Sequence[Row] = (),
    plots: Iterable[object] = (),
    full_epochs: Sequence[Row] = (),
    epochs: Sequence[Row] = (),
) -> RenderableType:
    """Show a full-rank and a Cuttlefish run of one length side by side, and at last what an epoch gained.

    Args:
        plots: Paths of the Cuttlefish run's plots.
        full_epochs, epochs: The epoch rows of the two runs.
    """
    caution = _unlike(full, cuttlefish)
    parts = [
        _headline(cuttlefish),
        Text(one_line(f"switch  {switch_words(cuttlefish)}")),
        _screen(cuttlefish, profile, rank_rows, _comparison_table(full, cuttlefish)),
        *([Text(one_line(f"Not a like-for-like comparison: {caution}."), style="yellow")] if caution else []),
        *(Text(one_line(f"plot  {path}"), no_wrap=True, overflow="fold") for path in plots),
        *([Text(speed_words(full_epochs, epochs, cuttlefish.switch_epoch), style="bold")] if epochs else []),
    ]
    return Group(*parts)


def speed_words(full_epochs: Sequence[Row], epochs: Sequence[Row], switch_epoch: int | None) -> str:
    """Say what training an epoch takes before and after the switch, and at full rank; medians."""
    last_dense = switch_epoch or 0
    dense = _epoch_seconds(row for row in epochs if row["epoch"] <= last_dense)
    low = _epoch_seconds(row for row in epochs if row["epoch"] > last_dense)
    if switch_epoch is None or low is None:
        return "speed  no epoch was trained low-rank"
    full = _epoch_seconds(full_epochs)
    switched = f"{duration(dense)} → {duration(low)}: {_faster(dense, low)}"
    return f"speed  training an epoch {switched} ({_faster(full, low)} than full rank's {duration(full)})"


def _epoch_seconds(rows: Iterable[Row]) -> float | None:
    """Median of their training; the first, which also warms up, counts only where it is alone."""
    seconds = [row["seconds"]["train"] for row in rows]
    return median(seconds[1:] or seconds) if seconds else None


def as_text(renderable: RenderableType, width: int = WIDTH) -> str:
    """Return a renderable as text without colours, control characters or trailing blanks."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=False, color_system=None, no_color=True)
    console.print(renderable)
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip().split("\n"))


def _headline(record: Record) -> Text:
    words = [f"{record.model} on {record.data}", record.method, f"seed {record.seed}"]
    words += [f"{record.epochs} epochs", f"scale {record.scale}", record.status]
    return Text(one_line(" · ".join(words)), style="bold" if record.status == "finished" else "bold red")


def _screen(record: Record, profile: Row | None, rank_rows: Sequence[Row], facts: Table) -> RenderableType:
    """Put the ranks on the left and the rest on the right, so that a ResNet-18 fits one screen."""
    right = Group(profile_table(profile), facts) if profile else facts
    ranks = rank_table(record, profile, rank_rows)
    if ranks is None:
        return right
    if Console(width=WIDTH).measure(ranks).maximum > WIDEST:
        return Group(ranks, right)
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column()
    grid.add_row(ranks, right)
    return grid


def _compared(full: Record) -> Iterable[tuple[str, str, Callable[..., str], Callable[..., str]]]:
    """Yield name, field, format and comparison of each row."""
    show = percent if full.headline == "accuracy" else number
    yield f"{full.headline}, final", "score", show, _points
    yield f"{full.headline}, best", "score_best", show, _points
    yield from COMPARED


def _comparison_table(full: Record, low: Record) -> Table:
    right = [(heading, "right") for heading in ("full rank", str(low.method), "difference")]
    table = plain_table("Against full rank", ("", "left"), *right)
    for name, field, show, compare in _compared(full):
        one, other = getattr(full, field), getattr(low, field)
        table.add_row(*cells(name, show(one), show(other), compare(one, other)))
    return table


def _points(full: float | None, low: float | None) -> str:
    return UNKNOWN if full is None or low is None else f"{low - full:+.2f} points"


def _smaller(full: float | None, low: float | None) -> str:
    return f"{times(ratio_of(full, low))} smaller"


def _faster(full: float | None, low: float | None) -> str:
    ratio = ratio_of(full, low)
    if ratio is None:
        return UNKNOWN
    return f"{times(ratio)} faster" if ratio >= 1 else f"{times(1 / ratio)} slower"


COMPARED = (
    ("parameters", "params_total", count, _smaller),
    ("MACs an image", "macs_final", short_count, _smaller),
    ("compute time", "compute_seconds", duration, _faster),
    ("wall time", "wall_seconds", duration, _faster),
)


def _unlike(full: Record, low: Record) -> str:
    fields = "model data recipe epochs seed scale device precision threads world_size data_digest".split()
    pairs = [(name, getattr(full, name), getattr(low, name)) for name in fields]
    return ", ".join(f"{name} {one} / {other}" for name, one, other in pairs if one != other)
