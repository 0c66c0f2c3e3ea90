"""Input and output of every figure, and its small print."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cuttlefish.display import style
from cuttlefish.evidence.benches import Bench, benches_of
from cuttlefish.evidence.records import Collection, Evidence
from cuttlefish.planning.planned_run import PlannedRun


class NoData(Exception):
    """Raised when there is nothing to draw; the message names the missing runs or benches."""


@dataclass(frozen=True)
class Sources:
    """Evidence of one scale.

    Attributes:
        planned: The runs of tables and figures at that scale, for every seed that was run.
        names: Model or data set -> display name.
    """

    scale: str
    runs: list[Evidence]
    benches: list[Bench]
    planned: Sequence[PlannedRun] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    times: str = ""
    """A warning about the times of these runs."""

    def network(self, model: str, data: str | None = None) -> str:
        return " on ".join(self.names.get(name, name) for name in (model, data) if name)


@dataclass(frozen=True)
class Drawing:
    """One file: name (figure1, figure1-methods), caption, and its runs and benches."""

    name: str
    figure: Figure
    caption: str
    runs: list[str] = field(default_factory=list)
    benches: list[str] = field(default_factory=list)


def sources_of(
    collection: Collection,
    benches: Iterable[Bench],
    scale: str,
    planned: Sequence[PlannedRun] = (),
    names: Mapping[str, str] | None = None,
    times: str = "",
) -> Sources:
    """Return the finished runs and benches of the scale."""
    runs = [run for run in collection.finished if run.record.scale == scale]
    return Sources(scale, runs, benches_of(benches, scale), planned, names or {}, times)


def panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` axes, one below the other, each `height` inches high."""
    figure, grid = style.new_figure(7.2, 0.5 + height * count, count, 1, squeeze=False)
    return figure, list(grid.flat)


def drawing(
    sources: Sources, name: str, figure: Figure, caption: str, words: Sequence[str],
    runs: Iterable[Evidence] = (), benches: Iterable[Bench] = (),
) -> Drawing:  # fmt: skip
    """Write scale, hardware, n and other essential notes small below the figure; name its sources."""
    text = textwrap.fill(" · ".join([f"{sources.scale} scale", *words]), int(figure.get_figwidth() * 19))
    figure.supxlabel(text, x=0.006, ha="left", fontsize=7, color=style.MUTED)
    keys = dict.fromkeys(run.record.run_key for run in runs)
    return Drawing(name, figure, caption, list(keys), list(dict.fromkeys(bench.name for bench in benches)))


def hardware_of(runs: Iterable[Evidence]) -> str:
    return ", ".join(sorted({run.hardware for run in runs}))


def seeds_of(*groups: Iterable[Evidence]) -> str:
    """Return `n = 3 seeds`, or `n = 1 to 5 seeds` for several groups."""
    counts = sorted({len({run.record.seed for run in group}) for group in groups})
    words = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"n = {words} seed{'s' * (counts[-1] > 1)}"
