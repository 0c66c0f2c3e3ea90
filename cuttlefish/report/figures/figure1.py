"""Figure 1: parameters against accuracy over a grid of (E, K, rank ratio), with Cuttlefish's own point."""

from statistics import mean, stdev
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from cuttlefish.display import style
from cuttlefish.display.format import short_count
from cuttlefish.evidence.records import Evidence
from cuttlefish.plan.spec import EQUAL, PUBLISHED
from cuttlefish.report.figures.base import (
    Drawing,
    NoData,
    Sources,
    hardware_of,
    keys_of,
    seeds_of,
    small_print,
)
from cuttlefish.report.figures.groups import Group, groups_of, progress
from cuttlefish.report.figures.marks import SHAPES

FEWEST = 3
"""Minimum number of grid points for a panel."""


def draw(sources: Sources) -> list[Drawing]:
    """Draw one panel per network and data set with enough grid points."""
    panels = {network: of_one_kind(groups) for network, groups in groups_of(sources, "figure1").items()}
    panels = {
        network: groups
        for network, groups in panels.items()
        if sum(_on_grid(group) for group in groups) >= FEWEST
    }
    if not panels:
        raise NoData(f"no network has {FEWEST} points of the grid yet; {progress(sources, 'figure1')}")
    figure, grid = style.new_figure(7.2, 0.5 + 4.0 * len(panels), len(panels), 1, squeeze=False)
    for axes, (network, groups) in zip(grid.flat, panels.items(), strict=True):
        _panel(axes, groups)
        points = sum(_on_grid(group) for group in groups)
        style.entitle(
            axes,
            sources.network(*network),
            f"{points} points of the grid, {seeds_of(*(group.runs for group in groups))}",
        )
    used = [run for groups in panels.values() for group in groups for run in group.runs]
    words = [
        "accuracy of the last epoch; bars: standard deviation over seeds",
        progress(sources, "figure1"),
        hardware_of(used),
    ]
    small_print(figure, sources.scale, words)
    return [
        Drawing(
            "figure1",
            figure,
            "Parameters against accuracy over a grid of E, K and rank ratio.",
            keys_of(used),
        )
    ]


def of_one_kind(groups: list[Group]) -> list[Group]:
    """Return the cells of the kind with most grid points; published recipes and equal budgets never mix."""
    known = [group for group in groups if _is_known(group)]
    kinds = [[group for group in known if kind in group.plan.kinds] for kind in (EQUAL, PUBLISHED)]
    return max(kinds, key=lambda own: sum(_on_grid(group) for group in own))


def plain_log(axes: Axes) -> None:
    """Format labels of a logarithmic x axis as `200 k`, also when it spans less than a decade."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.08)


def _is_known(group: Group) -> bool:
    """Return whether all its runs have an accuracy, and a grid point its K."""
    needed = ("accuracy_final", "k") if _on_grid(group) else ("accuracy_final",)
    return all(getattr(run.record, name) is not None for run in group.runs for name in needed)


def _on_grid(group: Group) -> bool:
    return bool(group.plan.point)


def _panel(axes: Axes, groups: list[Group]) -> None:
    grid = [group for group in groups if _on_grid(group)]
    shares = sorted({_share(group.runs[0]) for group in grid})
    ks = sorted({group.runs[0].record.k for group in grid})
    colours = dict(zip(shares, style.depth_colours(len(shares)), strict=True))
    shapes = {k: SHAPES[1:][index % (len(SHAPES) - 1)] for index, k in enumerate(ks)}
    for group in grid:
        first = group.runs[0]
        _point(
            axes,
            group.runs,
            marker=shapes[first.record.k],
            color=colours[_share(first)],
            markersize=6,
            alpha=0.9,
        )
    for share in shares:
        axes.plot([], [], "o", color=colours[share], label=f"E = {share:.2g} of the run")
    for k in ks:
        axes.plot([], [], shapes[k], color=style.MUTED, label=f"K = {k}")
    for index, group in enumerate(group for group in groups if not _on_grid(group)):
        _off_grid(axes, group, index)
    axes.set(xlabel="parameters (all)", ylabel="test accuracy (%)")
    plain_log(axes)
    axes.legend(loc="lower right", fontsize=8, ncols=2)


def _off_grid(axes: Axes, group: Group, index: int) -> None:
    look: dict[str, Any] = {"marker": "D", "color": style.INK, "markersize": 7}
    if not group.plan.baseline:
        look = {
            "marker": "*",
            "color": style.ACCENT,
            "markersize": 15,
            "markerfacecolor": style.ACCENT if index < 2 else "white",
        }
    _point(axes, group.runs, label=group.plan.label, linestyle="none", zorder=4, **look)


def _share(run: Evidence) -> float:
    return round((run.record.switch_epoch or 0) / run.record.epochs, 2)


def _point(axes: Axes, own: list[Evidence], **look: Any) -> None:
    accuracies = [run.record.accuracy_final for run in own]
    spread = stdev(accuracies) if len(accuracies) > 1 else None
    axes.errorbar(
        mean(run.record.params_total for run in own),
        mean(accuracies),
        yerr=spread,
        elinewidth=1,
        capsize=2,
        **look,
    )
