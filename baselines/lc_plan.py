"""LC's knobs, and the plan derived from them and the recipe: epochs, learning rates and the schedule of μ."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from baselines.lc_math import mu_schedule, split_budget
from cuttlefish.config.schema import LearningRate, OptimizerConfig, RecipeConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.limits import Checked, Within
from cuttlefish.lowrank.matrix import SCHEMES
from cuttlefish.methods.own_recipe import OwnRecipe, own_recipe
from cuttlefish.methods.schedule import Exponential, Schedule, build_schedule
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
    scheme: Literal[*SCHEMES] = "channel"
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


@dataclass(frozen=True)
class Plan:
    """The reference's recipe, epochs of each L step and of fine-tuning, and μ of each C step (one more)."""

    chosen: Settings
    recipe: RecipeConfig
    l_steps: list[int]
    finetune: int
    mus: list[float]

    @property
    def epochs(self) -> int:
        """Number of epochs of all phases together."""
        return self.recipe.epochs + sum(self.l_steps) + self.finetune

    @property
    def sgd(self) -> OptimizerConfig:
        """The optimizer of L steps and fine-tuning, with the reference's weight decay."""
        return OptimizerConfig(nesterov=True, weight_decay=self.recipe.optimizer.weight_decay)

    def reference_schedule(self) -> Schedule:
        if self.chosen.reference_decay is None:
            return build_schedule(self.recipe.schedule, self.recipe.epochs)
        return Exponential(self.recipe.schedule.peak_lr, self.chosen.reference_decay)

    def l_schedules(self) -> Iterator[Exponential]:
        """Yield the schedule of each L step, restarted every time.

        The published rate is 0.0007, which is 0.007 of the usual peak for its batch.
        """
        lr, decay = self.chosen.l_lr or 0.007 * self.recipe.schedule.peak_lr, self.chosen.l_decay
        by_epoch = self.chosen.l_decay_per == "epoch"
        for step in range(1, len(self.l_steps) + 1):
            yield Exponential(lr, decay) if by_epoch else Exponential(lr * decay**step, 1.0)

    def ft_schedule(self) -> Exponential:
        """Decay by default from a tenth of the reference's peak to a twentieth of that, like 0.99**300."""
        lr = self.chosen.ft_lr or self.recipe.schedule.peak_lr / 10
        return Exponential(lr, self.chosen.ft_decay or 0.05 ** (1 / self.finetune))


def make_plan(chosen: Settings, recipe: RecipeConfig) -> Plan:
    """Plan all phases. Lengths not given in epochs are shares of the recipe's.

    L steps get the epochs left by the other two, at least one each: a short budget has fewer L steps and the
    same range of μ.
    """
    reference = chosen.recipe.get("epochs", max(1, round(chosen.reference_share * recipe.epochs)))
    own = own_recipe(recipe, {**chosen.recipe, "epochs": reference})
    finetune = chosen.ft_epochs or max(1, round(chosen.ft_share * recipe.epochs))
    l_steps = _l_steps(chosen, recipe.epochs, reference, finetune)
    steps = (len(l_steps) + 1) // chosen.mu_rep
    factor = chosen.mu_inc or (chosen.mu_last / chosen.mu0) ** (1 / (steps - 1))
    return Plan(chosen, own, l_steps, finetune, mu_schedule(chosen.mu0, factor, steps, chosen.mu_rep))


def _l_steps(chosen: Settings, epochs: int, reference: int, finetune: int) -> list[int]:
    wanted, left = chosen.steps * chosen.mu_rep - 1, epochs - reference - finetune
    if chosen.epochs_per_l is not None:
        return [chosen.epochs_per_l] * wanted
    if left <= 0:
        raise CuttlefishError(
            f"lc: {reference} reference and {finetune} fine-tuning epochs leave none of the recipe's "
            f"{epochs} for L steps"
        )
    if left < wanted and (chosen.mu_inc is not None or chosen.mu_rep > 1):
        raise CuttlefishError(
            f"lc: {left} epochs are left for {wanted} L steps: set epochs_per_l, or fewer steps, or leave "
            "mu_inc and mu_rep alone"
        )
    return split_budget(left, min(wanted, left))
