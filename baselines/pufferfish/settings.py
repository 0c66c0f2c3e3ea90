"""The knobs of Pufferfish."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from cuttlefish.limits import Checked, Within
from cuttlefish.methods.target import Match, TargetSize, one_size


@dataclass(frozen=True)
class Settings(Checked):
    """k: K, leading dense layers of the main path. rank_ratio: of every factorized layer's full rank.

    target_params, match: a size from which the ratio is found instead, or with sized_by=k, K at the given
    ratio.

    switch_epoch: E; if None, switch_fraction of the run's epochs (the paper's 80 of 300). extra_bn: batch
    norm between the factors of a convolution (the paper, section 4.1). dense: patterns of further layers to
    keep dense. The rest as in Cuttlefish.
    """

    k: Annotated[int | None, Within(0, 10_000)] = None
    rank_ratio: Annotated[float, Within(0, 1, "(]")] = 0.25
    target_params: TargetSize = None
    match: Match = None
    sized_by: Literal["rank_ratio", "k"] = "rank_ratio"
    switch_epoch: Annotated[int | None, Within(0, 100_000)] = None
    switch_fraction: Annotated[float, Within(0, 1, "()")] = 80 / 300
    extra_bn: bool = True
    factorize_shortcuts: bool = False
    dense: list[str] = field(default_factory=list)
    shortcut_bn: bool = True
    first_bias: bool = False
    keep_dense: bool = True
    rewarm: bool = True
    overshoot: bool = False
    track_ranks: bool = False

    def contradictions(self) -> Iterator[str]:
        yield from one_size(self)  # rank_ratio has a value of its own and is ignored if a size is given

    def outside(self, epochs: int) -> Iterator[str]:
        if self.switch_epoch is not None and self.switch_epoch >= epochs:
            yield f"switch_epoch={self.switch_epoch} lies outside the run's {epochs} epochs"
