"""95 % intervals of small samples, and whether an interval lies inside an accepted range."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isinf, nextafter, sqrt
from statistics import mean, stdev

from scipy.special import chdtri, stdtrit

from cuttlefish.errors import CuttlefishError

LEVEL = 0.95
INSIDE, OUTSIDE, OPEN, MISSING = "inside", "outside", "open", "missing"
Interval = tuple[float, float]


def t_interval(samples: Sequence[float]) -> Interval | None:
    """Return Student's interval of the mean; None for fewer than two samples."""
    if len(samples) < 2:
        return None
    middle, error = mean(samples), stdev(samples) / sqrt(len(samples))
    margin = float(stdtrit(len(samples) - 1, (1 + LEVEL) / 2)) * error
    return middle - margin, middle + margin


def seeds_for(deviation: float) -> int:
    """Return how many seeds bring the interval of a difference of two means down to ± 1.

    The two are paired by seed and vary independently, each with this standard deviation, so their difference
    has √2 times it.
    """
    count = 2
    while stdtrit(count - 1, (1 + LEVEL) / 2) * deviation * sqrt(2 / count) > 1:
        count += 1
    return count


def variation_interval(samples: Sequence[float]) -> Interval | None:
    """Return the interval of the coefficient of variation, stdev / mean; None for fewer than two samples.

    It is the chi-square interval of the standard deviation with the mean taken as known, which is exact
    enough for variations of a few percent.
    """
    if len(samples) < 2:
        return None
    freedom, variation = len(samples) - 1, stdev(samples) / mean(samples)
    quantiles = [chdtri(freedom, (1 + sign * LEVEL) / 2) for sign in (-1, 1)]  # chdtri takes the upper tail
    return variation * sqrt(freedom / quantiles[0]), variation * sqrt(freedom / quantiles[1])


@dataclass(frozen=True)
class Range:
    """Range of accepted values, both ends included."""

    low: float = -inf
    high: float = inf

    def place(self, interval: Interval) -> str:
        """Return inside, outside or open (the interval straddles a limit)."""
        if self.low <= interval[0] and interval[1] <= self.high:
            return INSIDE
        return OUTSIDE if interval[1] < self.low or interval[0] > self.high else OPEN

    def limits(self) -> tuple[float | None, float | None]:
        """Return the limits for files: infinities as None, and the number next to 0 as 0."""
        low, high = (
            None if isinf(limit) else float(f"{limit:.12g}") if abs(limit) > 1e-300 else 0.0
            for limit in (self.low, self.high)
        )
        return low, high


LIMITS = {
    "within": lambda pair: Range(float(pair[0]), float(pair[1])),
    "above": lambda limit: Range(low=nextafter(limit, inf)),
    "below": lambda limit: Range(high=nextafter(limit, -inf)),
    "at_least": lambda limit: Range(low=float(limit)),
    "at_most": lambda limit: Range(high=float(limit)),
}


def range_of(limits: Mapping[str, object]) -> Range:
    """Read `{within: [a, b]}`, or one limit: `{above: a}`, `{below: b}`, `{at_least: a}`, `{at_most: b}`."""
    try:
        ((name, value),) = limits.items()
        return LIMITS[name](value)
    except (AttributeError, LookupError, TypeError, ValueError):
        raise CuttlefishError(
            f"{limits!r} is not a range of accepted values; one of {', '.join(LIMITS)} with its number is"
        ) from None
