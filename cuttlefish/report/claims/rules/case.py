"""Input and output of every rule."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cuttlefish.evidence.benches import Bench
from cuttlefish.evidence.interval import Interval, Range
from cuttlefish.evidence.records import Evidence
from cuttlefish.evidence.selection import Runs, Where, at_scale

NETWORK = ("model", "data")


@dataclass(frozen=True)
class Measure:
    """Samples of one number: one per seed, pair of seeds, or repetition of a bench.

    Attributes:
        interval: If it is not Student's interval of the mean.
        averaged: Whether the value is the mean of the samples; if not, it is `value`.
        missing: What is missing, in a few words.
        composed: Whether it combines parts of which no run measured the whole.
    """

    name: str
    samples: list[float]
    accept: Range
    needs: int
    runs: list[Evidence] = field(default_factory=list)
    benches: list[Bench] = field(default_factory=list)
    interval: Interval | None = None
    value: float | None = None
    averaged: bool = True
    missing: str = ""
    composed: bool = False
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Case:
    """One reading of a claim: the runs and benches that count, the accepted range, the minimum of samples."""

    name: str
    scale: str
    runs: Runs
    benches: list[Bench]
    accept: Range
    needs: int

    def arm(self, where: Where) -> list[Evidence]:
        """Return the runs of one setting. Raises Unlike if the description fits several."""
        return self.runs.arm(where, self.scale, self.describe(where))

    def describe(self, where: Where) -> str:
        """Return a description of runs as text: `resnet18 on cifar10, pufferfish`."""
        named = at_scale(where, self.scale)
        network = " on ".join(str(named[path]) for path in NETWORK if path in named)
        rest = [_words(named["method"])] if "method" in named else []
        rest += [
            f"{path.split('.')[-1]} {_words(value)}"
            for path, value in named.items()
            if path not in (*NETWORK, "method") and value is not None
        ]
        return ", ".join([network, *rest])

    def measure(self, samples: list[float], runs: list[Evidence], **more: object) -> Measure:
        return Measure(self.name, samples, self.accept, self.needs, runs, **more)

    def missing(self, what: str) -> Measure:
        return Measure(self.name, [], self.accept, self.needs, missing=what)

    def part(self, name: str, accept: Range) -> Case:
        return replace(self, name=name, accept=accept)


def _words(value: object) -> str:
    return " or ".join(map(str, value)) if isinstance(value, list) else str(value)
