"""The knobs of LC."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from cuttlefish.config.recipe import LearningRate
from cuttlefish.limits import Checked, Within
from cuttlefish.lowrank.settings import Scheme
from cuttlefish.methods.own_recipe import OwnRecipe
from cuttlefish.methods.target import Match, TargetSize, one_size

Positive = Annotated[float, Within(0, 10**9, "(]")]
Share = Annotated[float, Within(0, 1, "()")]
Factor = Annotated[float, Within(0, 1, "(]")]


@dataclass(frozen=True)
class Settings(Checked):
    """The knobs of LC, described in conf/method/lc.yaml. By default all phases share the recipe's epochs."""

    alpha: Annotated[float, Within(0, 10**6)] = 2e-6
    target_params: TargetSize = None
    match: Match = None
    alpha_factor: Positive = 1.0
    retarget: bool = True
    criterion: Literal["storage", "flops"] = "storage"
    normalize: bool = True
    scheme: Scheme = "channel"
    include_first: bool = False
    include_last: bool = False
    include_shortcuts: bool = False
    # Our own defaults: an equal budget has no room for the code's 50 or 60 steps of 15 epochs, and alpha
    # prices a parameter, not a multiply-accumulate. A direction of a layer is kept if its share of ‖w‖²
    # exceeds 2·alpha·(m + n)/μ: in ResNet-18's widest layers (512 × 4,608) a fifth at mu0 and 0.2 % at
    # mu_last, the range in which ranks move.
    steps: Annotated[int, Within(2, 1000)] = 30
    mu0: Positive = 0.1
    mu_last: Positive = 10.0
    mu_inc: Annotated[float | None, Within(1, 1000)] = None
    mu_rep: Annotated[int, Within(1, 100)] = 1
    reference_share: Share = 0.5
    ft_share: Share = 0.2
    recipe: OwnRecipe = field(default_factory=dict)
    reference_decay: Factor | None = None
    epochs_per_l: Annotated[int | None, Within(1, 1000)] = None
    ft_epochs: Annotated[int | None, Within(1, 100_000)] = None
    l_lr: LearningRate | None = None
    l_decay: Factor = 0.99
    l_decay_per: Literal["epoch", "step"] = "epoch"
    ft_lr: LearningRate | None = None
    ft_decay: Factor | None = None
    ft_from: Literal["w", "delta"] = "w"
    decay_norms: bool = False

    def contradictions(self) -> Iterator[str]:
        yield from one_size(self)  # the presets give alpha, which is used without a size
        if self.mu_inc is None and self.mu_last < self.mu0:
            yield f"mu_last={self.mu_last} must not be below mu0={self.mu0}"
        if self.reference_share + self.ft_share >= 1:
            yield "reference_share and ft_share are shares of the epochs, above 0 and together below 1"
