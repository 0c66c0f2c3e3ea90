"""The verdict on a claim: a reading at paper scale and one at reduced scale, each with its evidence."""

from dataclasses import dataclass, field
from enum import StrEnum

from cuttlefish.evidence.interval import Interval


class Judgement(StrEnum):
    """The possible outcomes of a reading."""

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
    """One number behind a reading. A claim with several conditions has several parts.

    value: the mean over `samples` (one per seed, pair of seeds or repetition); interval: its 95 % interval,
    None for too few samples; accept: the required range of the interval (infinities as None); needs: the
    minimum of samples. state: inside, outside, open (the interval straddles a limit, or too few samples) or
    missing.
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
    """A verdict at one scale. ours, interval, n: those of the first part, which decides. runs: run keys;
    benches: file names; composed: whether the value combines measured step times and ranks instead of coming
    from one run."""

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
    """A claim and its two readings. value, accept: the paper's figure and the accepted range, if they are
    numbers; accepted, accepted_reduced: the same in words, as fixed before the runs. command, cost: how to
    run what is missing, and its cost."""

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
        """Run keys of both scales without repetition."""
        return list(dict.fromkeys([*self.paper.runs, *self.reduced.runs]))
