"""Draw the four figures of one run from its folder; call them inside `styled()`."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cuttlefish.display import style
from cuttlefish.display.format import short_count, times
from cuttlefish.display.rank_history import LayerHistory, full_ranks, rank_histories
from cuttlefish.display.screen import layer_order
from cuttlefish.display.stack_rows import StackRow, stack_rows, unit_of
from cuttlefish.record.fields import Record
from cuttlefish.record.record import value_of

Row = Mapping[str, Any]
MOST_LABELS = 24
METRICS = {"entropy": "effective rank", "energy": "energy rank"}
"""Axis labels of metrics other than the stable rank."""


def subject_of(record: Record) -> str:
    """Name the run, below paper scale with its scale and width, since a picture may be seen alone."""
    words = [record.model, record.data, record.method, f"seed {record.seed}"]
    if record.scale != "paper":
        width = value_of(record, "config.model.width")
        words += [f"{record.scale} scale", *([f"width {width}"] if width is not None else [])]
    return ", ".join(words)


def rank_curves(
    rank_rows: Sequence[Row], switch_epoch: int | None, subject: str = "", metric: str | None = None
) -> Figure:
    """Draw each layer's stable rank (or another `metric`) over its initial value, by epoch (figure 2)."""
    histories = rank_histories(rank_rows)
    figure, axes = style.new_figure(7.2, 4.4)
    axes.set(ylabel=f"{METRICS.get(metric, 'stable rank')} / its initial value")
    style.entitle(axes, "Ranks while training", subject)
    last = curves(axes, histories)
    if switch_epoch is not None:
        side = "left" if switch_epoch > last / 2 else "right"
        style.mark_switch(axes, switch_epoch, f"switch, E = {switch_epoch}", side=side)
    return figure


def curves(axes: Axes, histories: Sequence[LayerHistory], marker: float = 2.4) -> int:
    """Draw each layer's ratio by epoch, with its name or a colour bar; return the last epoch.

    Args:
        marker: Size of the points, which are drawn for at most 50 epochs.
    """
    colours = style.depth_colours(len(histories))
    last = max(history.epochs[-1] for history in histories)
    for history, colour in zip(histories, colours, strict=True):
        look = {"color": colour, "marker": "o", "markersize": marker if last <= 50 else 0}
        axes.plot(history.epochs, history.ratios, **look)
    highest = max(max(history.ratios) for history in histories)
    axes.set(xlabel="epochs trained", ylim=(0, 1.04 * max(1, highest)), xlim=(0, 1.012 * max(1, last)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    (_label_ends if len(histories) <= MOST_LABELS else _depth_bar)(axes, histories, colours)
    return last


def rank_ratios(record: Record, rank_rows: Sequence[Row], profile: Row | None, subject: str = "") -> Figure:
    """Draw the rank of each factorized layer as a share of its full rank; layers kept dense are pale."""
    full, ranks = full_ranks(rank_rows), record.ranks
    layers = [layer for layer in layer_order(full, ranks, profile) if layer in full or layer not in ranks]
    figure, axes = style.new_figure(7.2, 0.9 + 0.21 * len(layers))
    for place, (layer, colour) in enumerate(zip(layers, style.depth_colours(len(layers)), strict=True)):
        if layer in ranks:
            axes.barh(place, ranks[layer] / full[layer], color=colour, height=0.72)
            words = f"{ranks[layer]} of {full[layer]}"
            axes.text(ranks[layer] / full[layer] + 0.01, place, words, va="center", fontsize=8)
        else:
            axes.barh(place, 1, color=style.PALE, height=0.72)
            axes.text(0.99, place, "dense", va="center", ha="right", fontsize=8, color=style.MUTED)
    axes.set(xlim=(0, 1.005), xlabel="rank / full rank")
    style.entitle(axes, "Rank of each layer", subject)
    _name_rows(axes, layers)
    return figure


def stack_profile(profile: Row, subject: str = "") -> Figure:
    """Draw each stack's forward time at full rank and at ratio α, and its speed-up against τ (figure 4)."""
    rows, places = stack_rows(profile), range(len(profile["stacks"]))
    figure, (left, right) = style.new_figure(
        7.2, 1.4 + 0.42 * len(rows), 1, 2, sharey=True, width_ratios=(1.5, 1)
    )
    for shift, side, colour, label in (
        (-0.19, "full", style.FULL, "full rank"),
        (0.19, "low", style.LOW, f"rank ratio {profile['ratio']:g}"),
    ):
        times_of = [getattr(row, side) for row in rows]
        left.barh([place + shift for place in places], times_of, 0.36, color=colour, label=label)
    left.set_xlabel(f"forward pass ({unit_of(profile)})")
    style.entitle(left, "Stack profile")
    right.set_title(subject, **style.SUBJECT)
    left.legend(loc="best", fontsize=8.5)
    _speed_ups(right, rows, profile["threshold"])
    for axes in (left, right):
        _name_rows(axes, [f"{row.name} ({row.layers})" for row in rows])
    right.tick_params(labelleft=False)
    return figure


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def training_curves(epoch_rows: Sequence[Row], record: Record, subject: str = "") -> Figure:
    """Draw loss and headline metric by epoch; the switch comes after the last dense epoch."""
    figure, (upper, lower) = style.new_figure(7.2, 5.0, 2, 1, sharex=True)
    metric = record.headline
    for axes, quantity in ((upper, "loss"), (lower, metric)):
        for side, colour in (("train", style.FULL), ("test", style.LOW)):
            found = {row["epoch"]: _measured(row, side, quantity) for row in epoch_rows}
            known = {epoch: value for epoch, value in found.items() if value is not None}
            marker = "o" if len(known) < 3 else None
            axes.plot(list(known), list(known.values()), color=colour, label=side, marker=marker)
    upper.set(ylabel="loss", ylim=(0, None))
    style.entitle(upper, f"Loss and {metric}", subject)
    first, last = epoch_rows[0]["epoch"], epoch_rows[-1]["epoch"]
    lower.set(
        ylabel="accuracy (%)" if metric == "accuracy" else metric, xlabel="epoch", xlim=(first, max(last, 2))
    )
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    upper.legend(loc="upper right")
    if record.switch_epoch is not None:
        side = "left" if record.switch_epoch > 0.5 * last else "right"
        style.mark_switch(upper, record.switch_epoch + 0.5, _switch_label(record), side=side)
        style.mark_switch(lower, record.switch_epoch + 0.5)
    return figure


def _measured(row: Row, side: str, quantity: str) -> float | None:
    """Return an epoch's loss, accuracy or other metric; the latter exist on the evaluated set only."""
    value = row.get(f"{side}_{quantity}")
    return (row.get("metrics") or {}).get(quantity) if value is None and side == "test" else value


def _switch_label(record: Record) -> str:
    label = f"switch, E = {record.switch_epoch}"
    if record.params_full is None or record.params_total is None:
        return label
    return f"{label}\n{short_count(record.params_full)} → {short_count(record.params_total)} parameters"


def _speed_ups(axes: Axes, rows: Sequence[StackRow], threshold: float) -> None:
    for place, row in enumerate(rows):
        colour = style.LOW if row.factorize else style.FULL
        axes.hlines(place, 0, row.speedup, color=colour, linewidth=2)
        axes.plot(row.speedup, place, "o", color=colour, markersize=6)
        beside = {"xytext": (7, 0), "textcoords": "offset points", "va": "center", "bbox": style.ON_WHITE}
        axes.annotate(times(row.speedup), (row.speedup, place), color=style.INK, zorder=4, **beside)
    axes.axvline(threshold, color=style.ACCENT, linestyle=(0, (4, 2.5)), linewidth=1.2, gid="threshold")
    foot = {"xycoords": axes.get_xaxis_transform(), "xytext": (5, 3), "textcoords": "offset points"}
    look = {"color": style.ACCENT, "bbox": style.ON_WHITE, "va": "bottom"}
    axes.annotate(f"τ = {threshold:g}", (threshold, 0.0), **look, **foot)
    axes.set(xlabel="speed-up", xlim=(0, 1.25 * max(threshold, *(row.speedup for row in rows))))


def _label_ends(axes: Axes, histories: Sequence[LayerHistory], colours: Sequence[Any]) -> None:
    """Write layer names at the right margin, moved apart where curves end close together."""
    low, high = axes.get_ylim()
    heights = style.spread(
        [history.ratios[-1] for history in histories], (high - low) * 0.041, low + 0.02 * high, high
    )
    transform, right = axes.get_yaxis_transform(), axes.get_xlim()[1]
    for history, colour, height in zip(histories, colours, heights, strict=True):
        ends = (history.epochs[-1] / right, 1.03), (history.ratios[-1], height)
        fixed = {"transform": transform, "clip_on": False, "scalex": False, "scaley": False}
        axes.plot(*ends, color=colour, linewidth=1.0, gid="leader", **fixed)
        label = f"{history.layer}  {history.ratios[-1]:.2f}"
        axes.text(1.037, height, label, transform=transform, va="center", fontsize=7.5, color=style.INK)


def _depth_bar(axes: Axes, histories: Sequence[LayerHistory], colours: Sequence[Any]) -> None:
    """Draw a colour bar from the first to the last layer when there are too many for labels."""
    scale = ScalarMappable(cmap=ListedColormap(colours))
    bar = axes.figure.colorbar(scale, ax=axes, ticks=(0, 1), pad=0.02, aspect=40)
    bar.ax.set_yticklabels([histories[0].layer, histories[-1].layer], fontsize=7.5)
    bar.ax.invert_yaxis()
    bar.outline.set_visible(False)
