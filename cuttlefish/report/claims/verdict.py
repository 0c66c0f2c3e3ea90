"""What a claim of the paper has come to: one reading at paper scale and one at reduced scale, each with its
evidence."""

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

Interval = tuple[float, float]


class Judgement(StrEnum):
    """Every word that a reading can end in."""

    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    INCONCLUSIVE = "inconclusive"
    CONTRADICTED = "contradicted by the paper itself"
    NOT_RUN = "not run"
    OTHER_HARDWARE = "other hardware"
    DATA_ABSENT = "data absent"
    SHOWN = "shown, not judged"
    HOLDS = "holds at reduced scale"
    FAILS = "fails at reduced scale"
    NO_READING = "no reading"


@dataclass(frozen=True)
class Part:
    """One number that a reading rests on. A claim with several conditions has several parts.

    value: the mean over `samples` (one a seed, a pair of seeds or a repetition); interval: its 95 % interval,
    None where there are too few samples; accept: where the interval must lie (infinities as None); needs: the
    fewest samples that are judged. state: inside, outside, open (the interval straddles a limit, or too few
    samples) or missing.
    """

    name: str
    value: float | None
    interval: Interval | None
    n: int
    needs: int
    accept: tuple[float | None, float | None]
    state: str
    samples: list[float] = field(default_factory=list)
    missing: str = ""


@dataclass(frozen=True)
class Reading:
    """A verdict at one scale. ours, interval, n: those of the first part (the others are in `parts`). runs:
    run keys; benches: file names; composed: the value is put together from measured step times and ranks, no
    run took it."""

    verdict: Judgement
    ours: float | None = None
    interval: Interval | None = None
    n: int = 0
    needs: int = 0
    hardware: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    benches: list[str] = field(default_factory=list)
    composed: bool = False
    parts: list[Part] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    command: str = ""
    cost: str = ""


@dataclass(frozen=True)
class Verdict:
    """A claim and its two readings. value, accept: the paper's figure and the accepted range, where they are
    numbers; accepted, accepted_reduced: the same in words, as fixed before the runs. command, cost: what
    would run what is missing."""

    id: str
    what: str
    source: str
    reach: str
    value: float | None
    accept: Interval | None
    accepted: str
    accepted_reduced: str
    note: str
    paper: Reading
    reduced: Reading

    @property
    def verdict(self) -> Judgement:
        return self.paper.verdict

    @property
    def reduced_verdict(self) -> Judgement:
        return self.reduced.verdict

    @property
    def runs(self) -> list[str]:
        """Run keys of either scale, each once."""
        return list(dict.fromkeys([*self.paper.runs, *self.reduced.runs]))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
