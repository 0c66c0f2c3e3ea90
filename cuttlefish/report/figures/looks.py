"""How figures show methods, rank ratios, layers and numbers of parameters."""

from collections.abc import Sequence
from fractions import Fraction
from statistics import mean
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from cuttlefish.display import style
from cuttlefish.display.format import short_count
from cuttlefish.evidence.records import Evidence

COLOURS = ("#1F2933", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7A5195")
SHAPES = ("D", "o", "^", "s", "v", "P", "X", "<", ">")
"""A colour and a marker for each method, so that either suffices (Okabe and Ito's colours)."""
HATCHES = ("", "", "///", "", "...")
"""Hatches that distinguish bars without colour."""


def mark_of(index: int) -> dict[str, Any]:
    """Return matplotlib's colour and marker of the index-th method."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": SHAPES[index % len(SHAPES)]}


def ratio_word(ratio: float) -> str:
    """Return the ratio as a fraction: `1/4`."""
    return str(Fraction(ratio).limit_denominator(1000))


def ratio_colours(count: int) -> list[Any]:
    """Return grey for full rank, then darker blues for `count` ratios in descending order."""
    shades = matplotlib.colormaps["Blues"]
    return [style.FULL, *(shades(0.38 + 0.57 * index / max(count - 1, 1)) for index in range(count))]


def plain_log(axes: Axes) -> None:
    """Format labels of a logarithmic x axis as `200 k`, also when it spans less than a decade."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.08)


def mean_ratio(runs: Sequence[Evidence], layer: str, full: int) -> float | None:
    """Return the mean of rank / full rank over runs, 1 for a dense layer; None if it was dense in all."""
    ranks = [run.record.ranks.get(layer) for run in runs]
    if all(rank is None for rank in ranks):
        return None
    return mean(1.0 if rank is None else rank / full for rank in ranks)


def name_layers(axes: Axes, layers: Sequence[str]) -> None:
    """Label the x axis with layer names, slanted if there are few."""
    slant = {"rotation": 60 if len(layers) < 40 else 90, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(layers)), layers, fontsize=7.5, **slant)
    axes.set_xlim(-0.6, len(layers) - 0.4)
    axes.grid(visible=False, axis="x")
