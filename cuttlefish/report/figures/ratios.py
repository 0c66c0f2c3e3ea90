"""One style for rank ratios in every figure: dense grey, then darker blue for lower ranks."""

from fractions import Fraction

import matplotlib

from cuttlefish.display import style

Colour = tuple[float, float, float, float]


def ratio_word(ratio: float) -> str:
    """Return the ratio as a fraction: `1/4`."""
    return str(Fraction(ratio).limit_denominator(1000))


def ratio_colours(count: int) -> list[Colour | str]:
    """Return colours for full rank, then for `count` ratios in descending order."""
    shades = matplotlib.colormaps["Blues"]
    return [style.FULL, *(shades(0.38 + 0.57 * index / max(count - 1, 1)) for index in range(count))]


HATCHES = ("", "", "///", "", "...")
"""Hatches that distinguish bars without colour."""
