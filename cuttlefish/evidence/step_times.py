"""Training steps of a bench: the speed ratio of two arms, with bounds."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from cuttlefish.evidence.benches import Bench, newest
from cuttlefish.evidence.interval import Interval, t_interval

IMAGES = {"cifar10": 50_000, "cifar100": 50_000, "svhn": 73_257}
"""Number of images of a training set."""


@dataclass(frozen=True)
class StepRatio:
    """Ratio of slow to fast seconds per step.

    Attributes:
        samples: One per round if the bench kept its rounds, else only the ratio of medians.
        bounds: The 95 % interval of the rounds' mean, else the wider one from each arm's fastest and slowest
            rounds.
    """

    samples: list[float]
    bounds: Interval

    @property
    def value(self) -> float:
        return mean(self.samples)


def step_row(bench: Bench, **arm: Any) -> dict[str, Any] | None:
    """Return the only row with these values; None if there are none or several."""
    rows = bench.find(**arm)
    return rows[0] if len(rows) == 1 else None


def step_ratio(slow: dict[str, Any], fast: dict[str, Any]) -> StepRatio:
    """Compare two arms, paired by round: in each round the arms take turns within seconds."""
    if slow.get("rounds_s") and fast.get("rounds_s"):
        samples = [one / other for one, other in zip(slow["rounds_s"], fast["rounds_s"], strict=True)]
        bounds = t_interval(samples)
        if bounds:
            return StepRatio(samples, bounds)
    widest = slow["fastest_s"] / fast["slowest_s"], slow["slowest_s"] / fast["fastest_s"]
    return StepRatio([slow["step_s"] / fast["step_s"]], widest)


def dense_epoch(benches: Sequence[Bench], model: str | None, data: str | None) -> tuple[float, Bench] | None:
    """Return the seconds of a full-width fp32 epoch of dense steps by the newest step bench, and that."""
    steps = newest(benches, "steps")
    row = step_row(steps, model=model, arm="dense", width=64, precision="fp32") if steps else None
    return (IMAGES[data] / row["batch"] * row["step_s"], steps) if steps and row and data in IMAGES else None
