"""The knobs of automatic low-rank training, for the library and for every method that is a setting of it.

Needs no torch, so that a wrong knob is refused before torch is imported.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, NamedTuple

from cuttlefish.limits import Checked, Each, OptionsOf, Within
from cuttlefish.lowrank.stability import PRESETS, Rule

Scheme = Literal["channel", "spatial"]
Epoch = Annotated[int | None, Within(0, 100_000)]


class Metric(NamedTuple):
    """measure: what of each weight is measured (see `RankTracker`). scaled: times β = R / its first value."""

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
class Settings(Checked):
    """The knobs of automatic low-rank training; the defaults are the clean behaviour.

    k: leading dense layers: `profile` (timed; transformers: all, untimed), `paper` (paper_k) or a number.
    ratio, threshold, profile_repeats: α, τ, ζ. always_profile: measure the stacks even where k is given.
    metric: what of a weight gives its rank (`METRICS`). rank_floor: lowest rank as a fraction of full rank.
    beta: what rank the first weights have, R / s(0) being the paper's β for random ones (`first_ranks`).
    round_to: the multiple to which ranks are rounded up. floored: truncate stable ranks to integers first, as
    the reference's code does.
    stability, stability_options, min_epoch: the `StabilityTest` that finds E. max_epoch: the last E allowed.
    on_never: what happens there (or at the end) if ranks have not settled: full_rank, switch_at or error.
    switch_epoch, ranks, rank_ratio: E, R or one global ratio fixed by hand instead of found.
    target_params: the model's parameters at most; ranks that make it larger are all lowered by one factor.
    dense: patterns of further layers left dense, as in "*.attn.proj". wait_for_dense: the test waits for the
    ranks of those, too. misaligned: take β and R from other layers, as the reference's code for ImageNet.
    freeze: patterns of modules whose parameters are not trained from the switch on.
    untracked: factorized layers whose ranks the test does not wait for. frobenius_decay: λ of FD, 0 for none.
    decay_untracked: FD on those layers too. shortcut_bn: extra BN in shortcuts too. first_bias: a bias of its
    own for a Linear's first factor, which that of the second makes superfluous. keep_dense: leave layers
    alone whose rank reaches break-even. rewarm, overshoot: repeat the learning-rate warm-up after the switch;
    in the reference's form.
    track_dense: record the ranks of the other layers, too. track_ranks: False measures none (E and R fixed).
    """

    k: Literal["profile", "paper"] | int = "profile"
    paper_k: Annotated[int | None, Within(0, 10_000)] = None
    ratio: Annotated[float, Within(0, 1, "()")] = 0.25
    threshold: Annotated[float, Within(0, 1000)] = 1.5
    profile_repeats: Annotated[int, Within(2, 1000)] = 11
    profile_backward: bool = True
    always_profile: bool = False
    metric: Literal[*METRICS] = "scaled"  # pyrefly: ignore[invalid-literal]
    beta: Literal["auto", "initial", "random", "energy"] = "auto"
    rank_floor: Annotated[float, Within(0, 1)] = 0.0
    round_to: Annotated[int, Within(1, 1024)] = 1
    floored: bool = False
    stability: Literal[*PRESETS] = "scale_free"  # pyrefly: ignore[invalid-literal]
    stability_options: Annotated[dict[str, Any], OptionsOf(Rule)] = field(default_factory=dict)
    min_epoch: Epoch = None
    max_epoch: Epoch = None
    on_never: Literal["full_rank", "switch_at", "error"] = "full_rank"
    switch_epoch: Epoch = None
    ranks: Annotated[dict[str, int] | None, Each(Within(1, 10**6))] = None
    rank_ratio: Annotated[float | None, Within(0, 1, "(]")] = None
    target_params: Annotated[int | None, Within(1, 10**12)] = None
    scheme: Scheme = "channel"
    dense: list[str] = field(default_factory=list)
    freeze: list[str] = field(default_factory=list)
    extra_bn: bool = False
    shortcut_bn: bool = True
    first_bias: bool = False
    frobenius_decay: Annotated[float, Within(0, 1000)] = 0.0
    decay_untracked: bool = True
    untracked: list[str] = field(default_factory=list)
    wait_for_dense: bool = False
    misaligned: bool = False
    keep_dense: bool = True
    factorize_shortcuts: bool = False
    rewarm: bool = True
    overshoot: bool = False
    track_dense: bool = False
    track_ranks: bool = True

    def __post_init__(self) -> None:
        if self.metric == "stable":  # one name for one thing, lest its runs have two keys
            object.__setattr__(self, "metric", "scaled")

    def contradictions(self) -> Iterator[str]:
        if isinstance(self.k, int) and self.k < 0:
            yield f"k={self.k} must be profile, paper or a number of leading dense layers, 0 or more"
        if self.k == "paper" and self.paper_k is None:
            yield "k=paper, but the paper gives no K for this model: use k=profile or a number"
        if self.frobenius_decay and self.extra_bn:
            yield "frobenius_decay and extra_bn exclude each other: set frobenius_decay=0 or extra_bn=false"
        if self.extra_bn and self.scheme != "channel":
            yield (
                "extra_bn exists in the channel scheme only: "
                f"set extra_bn=false, or scheme=channel instead of {self.scheme}"
            )
        if self.on_never == "switch_at" and self.max_epoch is None:
            yield "on_never=switch_at needs max_epoch, the epoch to switch at"
        if self.min_epoch is not None and self.max_epoch is not None and self.min_epoch > self.max_epoch:
            yield f"min_epoch={self.min_epoch} lies behind max_epoch={self.max_epoch}"
        if self.ranks is not None and self.rank_ratio is not None:
            yield "ranks and rank_ratio each fix the ranks: give one of them"
        fixed = self.switch_epoch is not None and (self.ranks is not None or self.rank_ratio is not None)
        if not self.track_ranks and not fixed:
            yield (
                "track_ranks=false needs switch_epoch and rank_ratio (or ranks), "
                "which else are found by tracking"
            )

    def leading(self, otherwise: int) -> int:
        """Return K where it is given, and another number where a profile is to find it."""
        k = self.paper_k if self.k == "paper" else self.k
        return k if isinstance(k, int) else otherwise

    def outside(self, epochs: int) -> Iterator[str]:
        for key in ("min_epoch", "max_epoch", "switch_epoch"):
            epoch = getattr(self, key)
            if epoch is not None and epoch >= epochs:
                yield f"{key}={epoch} lies outside the run's {epochs} epochs"

    def leaves_dense(self, name: str) -> bool:
        """Return whether one of the patterns in `dense` names this layer."""
        return any(fnmatchcase(name, pattern) for pattern in self.dense)
