"""The style of every figure: readable in print and for the colour-blind. Needs matplotlib."""

import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from math import inf
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cuttlefish.record.atomic import write_atomic

INK, MUTED, GRID = "#1F2933", "#6B7785", "#DDE2E7"
FULL, LOW, ACCENT = "#8C99A6", "#0072B2", "#D55E00"
"""Colours for full rank, low rank, and warnings (Okabe and Ito's blue and vermilion)."""
PALE = "#EEF1F4"
ON_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.9}
SUBJECT: dict[str, Any] = {"loc": "right", "fontsize": 8.5, "fontweight": "normal", "color": MUTED}
STYLE: dict[str, Any] = {
    "figure.dpi": 150, "savefig.dpi": 150, "figure.facecolor": "white", "figure.constrained_layout.use": True,
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9.0, "text.color": INK,
    "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 10.0,
    "axes.labelcolor": INK, "axes.edgecolor": MUTED, "axes.linewidth": 0.8, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True, "grid.color": GRID,
    "grid.linewidth": 0.7, "lines.linewidth": 1.6, "xtick.color": MUTED, "ytick.color": MUTED,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "legend.frameon": False,
    "svg.hashsalt": "cuttlefish", "svg.fonttype": "path",
}  # fmt: skip


def styled() -> AbstractContextManager[None]:
    """Apply the style while drawing and saving: `with styled(): …`."""
    return matplotlib.rc_context(STYLE)


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, Any]:
    """Create a figure of width × height inches without pyplot's global state, and its axes."""
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots(rows, columns, **options)


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `<name>.png` (150 dpi) and `<name>.svg`, complete or absent; equal figures give equal bytes."""
    paths = []
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # one layout is enough and takes half of the time
    for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, metadata=metadata)
        paths.append(folder / f"{name}.{suffix}")
        write_atomic(paths[-1], buffer.getvalue())
    return paths


def depth_colours(count: int) -> list[tuple[float, float, float, float]]:
    """Return colours from dark to light with depth, without the palest, which are unreadable on white."""
    colours = matplotlib.colormaps["viridis"]
    return [colours(0.86 * index / max(count - 1, 1)) for index in range(count)]


def entitle(axes: Axes, title: str, subject: str = "") -> None:
    """Write the title at the left and the run's name at the right."""
    axes.set_title(title)
    axes.set_title(subject, **SUBJECT)


def mark_switch(axes: Axes, epoch: float, label: str = "", side: str = "right") -> None:
    """Draw a dashed line where the model became low-rank, with its label at the top on that side."""
    axes.axvline(epoch, color=ACCENT, linestyle=(0, (4, 2.5)), linewidth=1.2, zorder=3, gid="switch")
    if label:
        shift, align = (5, "left") if side == "right" else (-5, "right")
        place = {"xytext": (shift, -2), "ha": align, "va": "top", "textcoords": "offset points"}
        coordinates = axes.get_xaxis_transform()
        axes.annotate(label, (epoch, 1.0), xycoords=coordinates, color=ACCENT, bbox=ON_WHITE, **place)


def spread(positions: Sequence[float], gap: float, low: float = -inf, high: float = inf) -> list[float]:
    """Return the positions, in their order, moved as little as possible (least squares) to be `gap` apart.

    Position minus rank·gap must not decrease with rank: isotonic regression by pooling, then clipping.
    """
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    blocks: list[tuple[float, int]] = []  # pooled mean of (position − rank·gap), and number of members
    for rank, index in enumerate(order):
        blocks.append((positions[index] - rank * gap, 1))
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (mean, size), (last_mean, last_size) = blocks[-2], blocks.pop()
            blocks[-1] = ((mean * size + last_mean * last_size) / (size + last_size), size + last_size)
    level = [max(low, min(mean, high - gap * (len(order) - 1))) for mean, size in blocks for _ in range(size)]
    placed = {index: level[rank] + rank * gap for rank, index in enumerate(order)}
    return [placed[index] for index in range(len(positions))]
