"""A distinct colour and marker for each method, so that either suffices (Okabe and Ito's colours)."""

from typing import Any

COLOURS = ("#1F2933", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7A5195")
SHAPES = ("D", "o", "^", "s", "v", "P", "X", "<", ">")


def mark_of(index: int) -> dict[str, Any]:
    """Return matplotlib's colour and marker of the index-th method."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": SHAPES[index % len(SHAPES)]}
