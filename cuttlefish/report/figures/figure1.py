"""Figure 1: parameters against accuracy over a grid of (E, K, rank ratio), with Cuttlefish's own point."""

from statistics import mean, stdev
from typing import Any

from matplotlib.axes import Axes

from cuttlefish.display import style
from cuttlefish.evidence.records import Evidence
from cuttlefish.planning.spec import EQUAL, PUBLISHED
from cuttlefish.report.figures.base import Drawing, NoData, Sources, drawing, hardware_of, panels, seeds_of
from cuttlefish.report.figures.groups import Group, groups_of, progress
from cuttlefish.report.figures.looks import SHAPES, plain_log

FEWEST = 3
"""Minimum number of grid points for a panel."""


def draw(sources: Sources) -> list[Drawing]:
    """Draw one panel per network and data set with enough grid points."""
    networks = {network: of_one_kind(groups) for network, groups in groups_of(sources, "figure1").items()}
    shown = [(network, groups) for network, groups in networks.items() if _points(groups) >= FEWEST]
    if not shown:
        raise NoData(f"no network has {FEWEST} points of the grid yet; {progress(sources, 'figure1')}")
    figure, grid = panels(len(shown), 4.0)
    for axes, (network, groups) in zip(grid, shown, strict=True):
        _panel(axes, groups)
        seeds = seeds_of(*(group.runs for group in groups))
        style.entitle(axes, sources.network(*network), f"{_points(groups)} points of the grid, {seeds}")
    used = [run for _, groups in shown for group in groups for run in group.runs]
    caption = "Parameters against accuracy over a grid of E, K and rank ratio."
    words = [
        "accuracy of the last epoch; bars: standard deviation over seeds",
        progress(sources, "figure1"),
        hardware_of(used),
    ]
    return [drawing(sources, "figure1", figure, caption, words, used)]


def of_one_kind(groups: list[Group]) -> list[Group]:
    """Return the cells of the kind with most grid points; published recipes and equal budgets never mix."""
    known = [group for group in groups if _is_known(group)]
    kinds = [[group for group in known if kind in group.plan.kinds] for kind in (EQUAL, PUBLISHED)]
    return max(kinds, key=_points)


def _points(groups: list[Group]) -> int:
    return sum(_on_grid(group) for group in groups)


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
        look = {"marker": shapes[group.runs[0].record.k], "color": colours[_share(group.runs[0])]}
        _point(axes, group.runs, markersize=6, alpha=0.9, **look)
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
        face = style.ACCENT if index < 2 else "white"
        look = {"marker": "*", "color": style.ACCENT, "markersize": 15, "markerfacecolor": face}
    _point(axes, group.runs, label=group.plan.label, linestyle="none", zorder=4, **look)


def _share(run: Evidence) -> float:
    return round((run.record.switch_epoch or 0) / run.record.epochs, 2)


def _point(axes: Axes, own: list[Evidence], **look: Any) -> None:
    accuracies = [run.record.accuracy_final for run in own]
    spread = stdev(accuracies) if len(accuracies) > 1 else None
    size = mean(run.record.params_total for run in own)
    axes.errorbar(size, mean(accuracies), yerr=spread, elinewidth=1, capsize=2, **look)
