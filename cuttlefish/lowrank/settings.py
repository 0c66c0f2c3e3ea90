"""The knobs of automatic low-rank training, for the library and for every method that is a setting of it."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cuttlefish.errors import CuttlefishError


class Metric(NamedTuple):
    """measure: what of each weight is measured (see `RankTracker`). scaled: multiplied by β = R / its initial value."""

    measure: str
    scaled: bool = True


METRICS = {
    "scaled": Metric("stable"),
    "unscaled": Metric("stable", scaled=False),
    "stable": Metric("stable"),  # another name of `scaled`
    "entropy": Metric("entropy"),
    "energy": Metric("energy"),
}
"""`metric` → how ranks are found: by stable rank (scaled: the paper's), by effective rank or by energy."""


@dataclass(frozen=True)
class Settings:
    """The knobs of automatic low-rank training; the defaults are the clean behaviour.

    k: leading dense layers: `profile` (timed; transformers: all layers, untimed), `paper` (paper_k) or a number.
    ratio, threshold, profile_repeats: α, τ, ζ; always_profile: measure the stacks, for the record, even where k is given.
    metric: what is measured of each weight (`METRICS`); rank_floor: lowest rank as a fraction of full rank; round_to: multiple.
    floored: ranks from integer-truncated stable ranks, as the reference's code.
    stability, stability_options, min_epoch: the `StabilityTest` that finds E. max_epoch: the last E allowed; on_never says
    what happens there (or at the run's end) if ranks have not settled: full_rank, switch_at (max_epoch) or error.
    switch_epoch, ranks, rank_ratio: E, R or one global ratio fixed by hand instead of found.
    untracked: factorized layers whose ranks the test does not wait for. frobenius_decay: λ of FD, 0 for none;
    decay_untracked: FD on those layers too. keep_dense: leave layers alone whose rank reaches break-even.
    rewarm, overshoot: repeat the learning-rate warm-up after the switch; in the reference's form.
    track_dense: record the ranks of the other layers too; track_ranks=False measures none, where E and R are both fixed.
    """

    k: str | int = "profile"
    paper_k: int | None = None
    ratio: float = 0.25
    threshold: float = 1.5
    profile_repeats: int = 11
    profile_backward: bool = True
    always_profile: bool = False
    metric: str = "scaled"
    rank_floor: float = 0.0
    round_to: int = 1
    floored: bool = False
    stability: str = "scale_free"
    stability_options: dict[str, Any] = field(default_factory=dict)
    min_epoch: int | None = None
    max_epoch: int | None = None
    on_never: str = "full_rank"
    switch_epoch: int | None = None
    ranks: dict[str, int] | None = None
    rank_ratio: float | None = None
    scheme: str = "channel"
    extra_bn: bool = False
    frobenius_decay: float = 0.0
    decay_untracked: bool = True
    untracked: list[str] = field(default_factory=list)
    keep_dense: bool = True
    factorize_shortcuts: bool = False
    rewarm: bool = True
    overshoot: bool = False
    track_dense: bool = False
    track_ranks: bool = True

    def __post_init__(self) -> None:
        if self.metric == "stable":  # one name for one thing, lest its runs have two keys
            object.__setattr__(self, "metric", "scaled")

    def check(self) -> None:
        """Raise CuttlefishError for contradictions, before anything is built."""
        if self.frobenius_decay and self.extra_bn:
            raise CuttlefishError(
                "frobenius_decay and extra_bn exclude each other: set frobenius_decay=0 or extra_bn=false"
            )
        if self.on_never not in ("full_rank", "switch_at", "error"):
            raise CuttlefishError(f"on_never={self.on_never} is unknown; it is full_rank, switch_at or error")
        if self.on_never == "switch_at" and self.max_epoch is None:
            raise CuttlefishError("on_never=switch_at needs max_epoch, the epoch to switch at")
        if self.metric not in METRICS:
            raise CuttlefishError(f"metric={self.metric} is unknown; it is one of {', '.join(METRICS)}")
        if not 0 <= self.rank_floor <= 1:
            raise CuttlefishError(
                f"rank_floor={self.rank_floor} must lie in [0, 1]: above 1 the floor passes the cap, full rank"
            )
        if not 0 < self.ratio < 1 or (self.rank_ratio is not None and not 0 < self.rank_ratio <= 1):
            raise CuttlefishError("ratio and rank_ratio are fractions of full rank and must lie in (0, 1]")
        if self.min_epoch is not None and self.max_epoch is not None and self.min_epoch > self.max_epoch:
            raise CuttlefishError(f"min_epoch={self.min_epoch} lies behind max_epoch={self.max_epoch}")
        if self.profile_repeats < 2 or self.round_to < 1:
            raise CuttlefishError(
                "profile_repeats must be at least 2 (the first is dropped) and round_to at least 1"
            )
        if not (isinstance(self.k, int) or self.k in ("profile", "paper")):
            raise CuttlefishError(
                f"k={self.k} is unknown; it is profile, paper or a number of leading dense layers"
            )
        if self.k == "paper" and self.paper_k is None:
            raise CuttlefishError(
                "k=paper, but the paper gives no K for this model: use k=profile or a number"
            )
        if not self.track_ranks and (
            self.switch_epoch is None or (self.ranks is None and self.rank_ratio is None)
        ):
            raise CuttlefishError(
                "track_ranks=false needs switch_epoch and rank_ratio (or ranks), which else are found by tracking"
            )
