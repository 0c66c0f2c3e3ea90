"""Layers along the x axis with the ranks chosen by runs, shared by figures 3 and 5."""

from collections.abc import Sequence
from statistics import mean

from matplotlib.axes import Axes

from cuttlefish.evidence.records import Evidence


def mean_ratio(runs: Sequence[Evidence], layer: str, full: int) -> float | None:
    """Return the mean of rank / full rank over runs, 1 for a dense layer; None if it was dense in all."""
    ranks = [run.record.ranks.get(layer) for run in runs]
    return (
        None
        if all(rank is None for rank in ranks)
        else mean(1.0 if rank is None else rank / full for rank in ranks)
    )


def name_layers(axes: Axes, layers: Sequence[str]) -> None:
    """Label the x axis with layer names, slanted if there are few."""
    axes.set_xticks(
        range(len(layers)),
        layers,
        rotation=60 if len(layers) < 40 else 90,
        ha="right",
        rotation_mode="anchor",
        fontsize=7.5,
    )
    axes.set_xlim(-0.6, len(layers) - 0.4)
    axes.grid(visible=False, axis="x")
