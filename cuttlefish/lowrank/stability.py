"""The rule that decides the switch epoch E: have the ranks of all tracked layers stopped changing?

The paper's text (sections 3.4, 3.6) asks for |dρ/dt| < ε. The reference's code smooths ρ, averages |dρ/dt|
over a window, lets a layer that has settled stay settled, and relaxes ε for the last layers. Both are
settings of one rule here, as is a third that needs no absolute ε: the relative change, projected to a fixed
fraction of the run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import ceil, floor, isfinite
from typing import Annotated, Any, Literal

import numpy as np

from cuttlefish.errors import CuttlefishError
from cuttlefish.limits import Checked, Within


@dataclass(frozen=True)
class Rule(Checked):
    """When one layer counts as settled, given its stable ranks ρ at updates 0 … e.

    threshold: ε, on the mean of the last `window` values of |dρ/dt|, in ranks an update (but see `relative`).
    smoothing: span N of the exponential moving average taken first (weight 2/(N+1)); 1 is none.
    window: how many derivatives are averaged; a float below 1 is that fraction of the run, at least 2.
    derivative: gradient (central differences inside, one-sided at the ends) or backward (ρ_e − ρ_{e−1}).
    relaxed: (layers still unsettled at most, ε) pairs in place of the threshold; the tightest count holds.
    first: earliest update that can settle a layer; None is the first with a full window.
    floored: truncate ρ to integers first. latch: once settled, a layer stays settled.
    relative: |dρ/dt| is divided by ρ and multiplied by a tenth of the run: the relative change in a tenth.
    lag: dense epochs still trained after the deciding update (1), or none (0).
    """

    threshold: Annotated[float, Within(0, 10**6)] = 0.1
    smoothing: Annotated[int, Within(1, 100_000)] = 1
    window: Annotated[int | float, Within(0, 100_000, "(]")] = 1
    derivative: Literal["gradient", "backward"] = "gradient"
    relaxed: tuple[tuple[int, float], ...] = ()
    first: Annotated[int | None, Within(0, 100_000)] = None
    floored: bool = False
    latch: bool = True
    relative: bool = False
    lag: Annotated[int, Within(0, 1)] = 1


PRESETS = {
    # Less than 10 % change in a tenth of the run. Frozen on the digits before the first run on CIFAR-10.
    "scale_free": Rule(threshold=0.1, window=0.1, relative=True),
    "paper": Rule(threshold=0.1, derivative="backward", latch=False, first=1),
    "reference-cifar": Rule(
        threshold=0.1, smoothing=15, window=11, relaxed=((1, 0.5), (2, 0.25)), first=15, floored=True
    ),
    "reference-imagenet": Rule(
        threshold=0.33, smoothing=5, window=5, relaxed=((3, 1.65), (6, 0.825)), first=6, floored=True, lag=0
    ),
    "reference-deit": Rule(
        threshold=0.411,
        smoothing=5,
        window=5,
        relaxed=((4, 2.055), (9, 1.0275)),
        first=6,
        floored=True,
        lag=0,
    ),
}
PRESETS["reference"] = PRESETS["reference-cifar"]


def make_rule(preset: str, options: Mapping[str, Any]) -> Rule:
    """Return a preset's rule with constants replaced. Raises CuttlefishError for what is unknown or wrong."""
    if preset not in PRESETS:
        raise CuttlefishError(f"unknown stability preset {preset!r}; there are {', '.join(PRESETS)}")
    known = [field.name for field in fields(Rule)]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise CuttlefishError(f"unknown stability option {unknown[0]!r}; a rule has {', '.join(known)}")
    rule = replace(PRESETS[preset], **options)
    rule.check("stability_options")
    return rule


class StabilityTest:
    """Fed one dict of stable ranks an update; says from which update on all layers have settled.

    Args:
        preset: scale_free, paper, reference (= reference-cifar), reference-imagenet or reference-deit.
        epochs: Length of the run, which scale_free and a fractional window need.
        min_epoch: No switch epoch E below this.
        **options: Constants of the preset's `Rule` to replace.

    Raises:
        CuttlefishError: The preset or an option is unknown or wrong, or the run's length is missing.
    """

    def __init__(
        self,
        preset: str = "reference",
        *,
        epochs: int | None = None,
        min_epoch: int | None = None,
        **options: Any,
    ):
        self.rule = make_rule(preset, options)
        self.relaxations = sorted(tuple(pair) for pair in self.rule.relaxed)
        if epochs is None and (self.rule.relative or self.rule.window < 1):
            raise CuttlefishError(
                f"stability preset {preset!r} measures against the run's length: give epochs="
            )
        self.epochs = epochs
        self.window = (
            max(2, ceil(self.rule.window * (epochs or 1))) if self.rule.window < 1 else int(self.rule.window)
        )
        first = self.window if self.rule.first is None else self.rule.first
        self.first = max(first, (min_epoch or 0) - self.rule.lag)
        self.history: dict[str, list[float]] = {}
        self.settled: dict[str, int] = {}
        self.relaxed = False

    def update(self, ranks: dict[str, float]) -> bool:
        """Take in the stable rank of each layer (dotted name → rank); return True once all have settled.

        Raises CuttlefishError for a rank that is not finite.
        """
        for name, rank in ranks.items():
            if not isfinite(rank):
                raise CuttlefishError(f"The rank of layer {name!r} is {rank}: training has diverged.")
            self.history.setdefault(name, []).append(float(rank))
        update = len(next(iter(self.history.values()), [])) - 1
        if not self.rule.latch:
            self.settled = {}
        left = len(self.history) - len(self.settled)
        threshold = self._threshold(left)
        if update >= self.first:
            for name, history in self.history.items():
                if name not in self.settled and self._has_settled(history, threshold):
                    self.settled[name] = update
                    self.relaxed |= threshold > self.rule.threshold and not self._has_settled(
                        history, self.rule.threshold
                    )
        return bool(self.history) and len(self.settled) == len(self.history)

    @property
    def reason(self) -> str:
        """Why the test is passed: settled, settled by relaxation, or at the minimum E."""
        if max(self.settled.values(), default=0) <= self.first:
            return "at the minimum E"
        return "settled by relaxation" if self.relaxed else "settled"

    def rate(self, history: list[float]) -> float:
        """Return the mean |dρ/dt| of the last window, as the rule measures it; inf with too few updates."""
        values = np.asarray(
            [floor(value) for value in history] if self.rule.floored else history, dtype=np.float64
        )
        if len(values) < 2:
            return float("inf")
        smooth = moving_average(values, self.rule.smoothing)
        slope = np.abs(np.gradient(smooth) if self.rule.derivative == "gradient" else np.diff(smooth))
        rate = float(slope[-self.window :].mean())
        if not self.rule.relative:
            return rate
        return rate / max(abs(smooth[-1]), 1e-12) * (self.epochs or 1) / 10

    def _threshold(self, left: int) -> float:
        return next((epsilon for count, epsilon in self.relaxations if left <= count), self.rule.threshold)

    def _has_settled(self, history: list[float], threshold: float) -> bool:
        rate = self.rate(history)
        # The text asks for < ε, the reference's code for <= ε.
        return rate < threshold if self.rule.derivative == "backward" else rate <= threshold


def moving_average(values: np.ndarray, span: int) -> np.ndarray:
    """Return y with y_0 = x_0 and y_i = w·x_i + (1 − w)·y_{i−1}, where w = 2 / (span + 1)."""
    smooth = np.empty(len(values))
    smooth[0] = values[0]
    weight = 2 / (span + 1)
    for index in range(1, len(values)):
        smooth[index] = weight * values[index] + (1 - weight) * smooth[index - 1]
    return smooth
