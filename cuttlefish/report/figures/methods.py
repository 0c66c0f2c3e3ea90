"""Compare all methods: accuracy against parameters, and against compute time."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from cuttlefish.display import style
from cuttlefish.evidence.selection import on_one_machine
from cuttlefish.planning.spec import EQUAL, PUBLISHED
from cuttlefish.report.figures.base import Drawing, NoData, Sources, drawing, hardware_of, seeds_of
from cuttlefish.report.figures.groups import Group, groups_of, progress
from cuttlefish.report.figures.looks import mark_of, plain_log

FEWEST = 3
FILES = {EQUAL: "figure1-methods", PUBLISHED: "figure1-methods-published"}
BITS = 32
LOOK = {"markeredgewidth": 1.6, "linestyle": "none"}
FACES = [
    Line2D([], [], color=style.MUTED, marker="o", markersize=7, markerfacecolor=face, label=words, **LOOK)
    for face, words in (
        (style.MUTED, "filled: all parameters"),
        ("white", "hollow: parameters\nnot zero (masked)"),
    )
]
"""Legend labels of the two kinds of size on one axis."""


@dataclass(frozen=True)
class Point:
    """The means of one cell.

    Attributes:
        size: Parameters; for masked networks the non-zero ones.
        seconds: Compute time; None if no run was on the machine with most runs.
    """

    name: str
    size: float
    masked: bool
    accuracy: float
    spread: float | None
    seconds: float | None
    mark: int


def draw(sources: Sources) -> list[Drawing]:
    """Draw a file for equal budgets and one for published recipes, each for the network with most methods."""
    drawings = list(filter(None, [_drawing(sources, kind) for kind in FILES]))
    if not drawings:
        raise NoData(f"no network has runs of {FEWEST} methods; of table 1, {progress(sources, 'table1')}")
    return drawings


def points_of(groups: Sequence[Group], order: Sequence[str]) -> list[Point]:
    """Return one point per method. order: all methods, so that each has the same marker in every figure."""
    machine = {run.hardware for run in on_one_machine([run for group in groups for run in group.runs])}
    return [
        _point(group, order.index(group.method), machine)
        for group in sorted(groups, key=lambda group: order.index(group.method))
    ]


def _drawing(sources: Sources, kind: str) -> Drawing | None:
    networks = {
        network: _a_method_each(groups, kind) for network, groups in groups_of(sources, "table1").items()
    }
    network, groups = max(networks.items(), key=lambda item: len(item[1]), default=(("", ""), []))
    if len(groups) < FEWEST:
        return None
    points = points_of(groups, _order(sources))
    figure, (left, right) = style.new_figure(8.2, 4.3, 1, 2, sharey=True, width_ratios=(1.15, 1))
    floor = floor_of([point.accuracy for point in points])
    _sizes(left, points, floor)
    _times(right, points, floor)
    style.entitle(left, sources.network(*network))
    right.set_title(f"{kind}, {seeds_of(*(group.runs for group in groups))}", **style.SUBJECT)
    is_masked = any(point.masked for point in points)
    handles, _ = left.get_legend_handles_labels()
    figure.legend(handles=[*handles, *(FACES if is_masked else ())], loc="outside right center", fontsize=8)
    used = [run for group in groups for run in group.runs]
    masked = ["hollow: a mask's zeros are not counted as parameters, but stored and computed with"]
    times = " ".join([f"times: {hardware_of(on_one_machine(used))}.", sources.times]).strip(". ")
    words = [*(masked if is_masked else []), "accuracy of the last epoch", times]
    caption = f"Accuracy against parameters and compute time, {kind}."
    return drawing(sources, FILES[kind], figure, caption, words, used)


def _a_method_each(groups: Sequence[Group], kind: str) -> list[Group]:
    """Return for each method its first row of the table that has runs with an accuracy."""
    methods: dict[str, Group] = {}
    for group in groups:
        if kind in group.plan.kinds and all(run.record.accuracy_final is not None for run in group.runs):
            methods.setdefault(group.method, group)
    return list(methods.values())


def _order(sources: Sources) -> list[str]:
    """Return the table's methods in row order, without rows that are presets of another."""
    rows = list(dict.fromkeys(one.row for one in sources.planned if one.table == "table1"))
    return [row for row in rows if not any(row.startswith(f"{other}_") for other in rows)]


def _point(group: Group, mark: int, machine: set[str]) -> Point:
    records = [run.record for run in group.runs]
    accuracies = [record.accuracy_final for record in records]
    masked = any(record.params_nonzero < 0.99 * record.params_total for record in records)
    timed = [run.record.compute_seconds for run in group.runs if run.hardware in machine]
    size = mean(record.params_nonzero if masked else record.params_total for record in records)
    bits = mean(record.params_stored_bits / record.params_nonzero for record in records)
    name = group.plan.label + (f"\n({bits:.1f} bits a parameter)" if bits < BITS / 2 else "")
    spread = stdev(accuracies) if len(accuracies) > 1 else None
    return Point(name, size, masked, mean(accuracies), spread, mean(timed) if timed else None, mark)


def floor_of(accuracies: Sequence[float]) -> float | None:
    """Return the lower end of the accuracy axis if one very low method would squeeze the others."""
    low, *others = sorted(accuracies)
    spread = max(others) - min(others)
    return min(others) - 0.4 * spread if min(others) - low > 2 * spread > 0 else None


def _sizes(axes: Axes, points: Sequence[Point], floor: float | None) -> None:
    for point in points:
        _mark(axes, point.size, point, floor, label=point.name)
    axes.set(xlabel="parameters", ylabel="test accuracy (%)")
    plain_log(axes)


def _times(axes: Axes, points: Sequence[Point], floor: float | None) -> None:
    timed = [point for point in points if point.seconds is not None]
    longest = max(point.seconds for point in timed)
    unit, size = ("h", 3600) if longest > 3 * 3600 else ("min", 60)
    for point in timed:
        _mark(axes, point.seconds / size, point, floor)
    axes.set(xlabel=f"compute time ({unit})", xlim=(0, 1.07 * longest / size))


def _mark(axes: Axes, x: float, point: Point, floor: float | None, **more: str) -> None:
    """Draw a point; one below the floor is drawn on it, with its accuracy beside it."""
    look = mark_of(point.mark)
    face = "white" if point.masked else look["color"]
    bars = {"yerr": point.spread, "capsize": 2, "elinewidth": 1, "markersize": 7.5, **LOOK}
    below = floor is not None and point.accuracy < floor
    if below:
        place = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center", "va": "center"}
        axes.annotate(f"{point.accuracy:.1f} ↓", (x, floor), fontsize=8, color=look["color"], **place)
    axes.errorbar(x, floor if below else point.accuracy, **bars, **look, markerfacecolor=face, **more)
