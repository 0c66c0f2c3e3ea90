"""The plan of LC, from its knobs and the recipe: epochs, learning rates and the schedule of μ."""

from collections.abc import Iterator
from dataclasses import dataclass

from baselines.lc.settings import Settings
from cuttlefish.config.recipe import OptimizerConfig, RecipeConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.methods.own_recipe import own_recipe
from cuttlefish.methods.schedule import Exponential, Schedule, build_schedule


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


def mu_schedule(mu0: float, factor: float, steps: int, repeats: int = 1) -> list[float]:
    """Return μ of every C step: μ_0·a^k for k = 0 … steps - 1, each `repeats` times."""
    return [mu0 * factor**k for k in range(steps) for _ in range(repeats)]


def split_budget(epochs: int, steps: int) -> list[int]:
    """Split `epochs` over `steps` L steps as evenly as possible, the longer ones last."""
    short, longer = divmod(epochs, steps)
    return [short] * (steps - longer) + [short + 1] * longer
