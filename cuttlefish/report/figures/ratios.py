"""Rank ratios drawn alike in every figure: dense grey, then darker blue the lower the rank."""

from fractions import Fraction

import matplotlib

from cuttlefish.display import style

Colour = tuple[float, float, float, float]


def ratio_word(ratio: float) -> str:
    """`1/4`"""
    return str(Fraction(ratio).limit_denominator(1000))


def ratio_colours(count: int) -> list[Colour | str]:
    """For full rank, then for `count` ratios from the highest to the lowest."""
    shades = matplotlib.colormaps["Blues"]
    return [style.FULL, *(shades(0.38 + 0.57 * index / max(count - 1, 1)) for index in range(count))]


HATCHES = ("", "", "///", "", "...")
"""So that bars differ without colour, too."""
