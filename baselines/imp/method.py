"""IMP: iterative magnitude pruning with rewinding (Frankle et al., 2020, as in their open_lth repository).

Train k epochs and keep that state; then, level by level, train to the end, drop a fifth of the remaining
weights (the smallest of the whole network), rewind the rest to the kept state and train again. The zeros
bring no speed-up and none is credited: the time of all levels counts.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from baselines.imp.levels import Plan, ladder, next_masks, plan, shortened
from baselines.imp.settings import Settings
from cuttlefish.config.recipe import RecipeConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.count import count_parameters
from cuttlefish.lowrank.find import nearest
from cuttlefish.methods.base import Context, Phase
from cuttlefish.methods.masks import Masks, prunable
from cuttlefish.methods.own_recipe import own_recipe
from cuttlefish.methods.schedule import build_schedule
from cuttlefish.methods.sized import SizedMethod

DEFAULT_LEVELS = 8
"""Default without levels and a size; 5.9 times smaller, the paper's size for ResNet-18 on CIFAR-10."""


class Imp(SizedMethod):
    """Phases: `pretrain` (epochs 0 … k − 1), then `level 0` … `level n`, each from epoch k to its end."""

    name = "imp"
    Settings = Settings
    levels: int
    plan: Plan

    def __init__(self, settings: Settings):
        super().__init__(settings)
        self.rewind: dict[str, Tensor] = {}
        self.masks: Masks | None = None
        self.kept: list[int] = []
        self.emptied: list[str] = []

    @classmethod
    def planned_epochs(cls, settings: Settings, recipe: RecipeConfig) -> int | None:
        if settings.equal_budget:
            return own_recipe(recipe, settings.recipe).epochs
        if settings.target_params is not None or settings.match is not None:
            return None  # the model decides how many levels a size takes
        return level_plan(settings, recipe, given_levels(settings)).epochs

    def prepare(self, context: Context) -> None:
        super().prepare(context)
        sizes = self._sizes(context.model)
        self.check_reachable(sizes[-1], sizes[0])
        self.levels = self._choose_levels(sizes)
        self.plan = level_plan(self.settings, context.recipe, self.levels)

    def phases(self, context: Context) -> Iterator[Phase]:
        recipe = own_recipe(context.recipe, self.settings.recipe)
        rewind, lengths = self.plan.rewind, self.plan.lengths
        schedules = [build_schedule(shortened(recipe, length).schedule, length) for length in lengths]
        optimizer = recipe.optimizer
        if rewind:
            yield Phase("pretrain", range(rewind), optimizer=optimizer, schedule=schedules[0])
        for level, (length, schedule) in enumerate(zip(lengths, schedules, strict=True)):
            course = {"optimizer": optimizer, "schedule": schedule, "enter": partial(self._enter, level)}
            yield Phase(f"level {level}", range(rewind, length), **course)

    def on_step_end(self, model: nn.Module) -> None:
        # Decay and momentum move pruned entries off zero; reset them right after the step.
        if self.masks is not None:
            self.masks.apply(model)

    def on_fit_end(self, context: Context) -> dict[str, Any]:
        achieved = self._achieved(context.model)
        fields = {"levels": self.levels, "kept": self.kept, "emptied_layers": self.emptied}
        fields |= {"rewind_epoch": self.plan.rewind, "level_epochs": list(self.plan.lengths)}
        fields["params_pruned_to"] = achieved
        if self.target is not None:
            sizes = self._sizes(context.model)
            others = [level for level in range(len(sizes)) if level != self.levels]
            other = self._nearest(others, sizes) if others else None
            fields["neighbour"] = None if other is None else {"levels": other, "params": sizes[other]}
        return self.with_target(fields, achieved)

    def state_dict(self) -> dict[str, Any]:
        masks = None if self.masks is None else self.masks.state_dict()
        state = {"levels": self.levels, "rewind": self.rewind, "masks": masks, "kept": self.kept}
        return state | {"emptied": self.emptied} | super().state_dict()

    def load_state_dict(self, context: Context, state: dict[str, Any]) -> None:
        super().load_state_dict(context, state)
        self.levels, self.kept, self.emptied = state["levels"], list(state["kept"]), list(state["emptied"])
        self.plan = level_plan(self.settings, context.recipe, self.levels)
        self.rewind = dict(state["rewind"])
        self.masks = None if state["masks"] is None else Masks(state["masks"])

    def _enter(self, level: int, context: Context) -> None:
        """Keep the state to rewind to at level 0; at later levels prune the trained weights and rewind."""
        model = context.model
        if level == 0:
            self.rewind = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            self.kept = [_count(prunable(model))]
            return
        with context.section("masks"):
            self.masks = Masks(context.broadcast(self._prune(model)))
            self.kept.append(self.masks.kept)
            self._say_emptied(level, context)
            model.load_state_dict(self.rewind)
            Masks(self.masks).apply(model)

    def _prune(self, model: nn.Module) -> dict[str, Tensor]:
        chosen = self.settings
        ignored = {f"{layer}.weight" for layer in chosen.ignore}
        how = {"fraction": chosen.fraction, "mode": chosen.mode, "ignore": ignored}
        masks = next_masks(prunable(model), self.masks or {}, **how)
        return {name: mask.cpu() for name, mask in masks.items()}

    def _say_emptied(self, level: int, context: Context) -> None:
        self.emptied = self.masks.emptied
        if self.emptied:
            context.log(f"level {level} leaves no weight in {', '.join(self.emptied)}")

    def _achieved(self, model: nn.Module) -> int:
        weights = _count(prunable(model))
        return count_parameters(model).total - weights + (weights if self.masks is None else self.masks.kept)

    def _sizes(self, model: nn.Module) -> list[int]:
        """Return the parameter counts after 0, 1, 2, … levels, as long as every layer can keep a weight."""
        weights = {name.removesuffix(".weight"): weight for name, weight in prunable(model).items()}
        ignore = self.settings.ignore
        if not weights:
            raise CuttlefishError("imp prunes convolutions and linear layers, and this model has none")
        for name in ignore:
            if name not in weights:
                what = f"which is no convolution or linear layer of this model{nearest(name, weights)}"
                raise CuttlefishError(f"ignore names {name!r}, {what}")
        ignored = {name: weight for name, weight in weights.items() if name in ignore}
        if len(ignored) == len(weights):
            raise CuttlefishError("ignore names every layer, which leaves nothing to prune")
        spared, rest = _count(ignored), count_parameters(model).total - _count(weights)
        fraction, mode, least = self.settings.fraction, self.settings.mode, len(weights) - len(ignored)
        alive = ladder(_count(weights) - spared, spared, fraction, mode, least=least)
        return [rest + spared + kept for kept in alive]

    def _choose_levels(self, sizes: list[int]) -> int:
        if self.target is not None:
            return self._nearest(range(len(sizes)), sizes)
        levels = given_levels(self.settings)
        if levels >= len(sizes):
            most = f"{len(sizes) - 1} at most leave each a weight"
            raise CuttlefishError(f"levels={levels} would empty layers of this model: {most}")
        return levels

    def _nearest(self, levels: Iterable[int], sizes: list[int]) -> int:
        return min(levels, key=lambda level: abs(sizes[level] - self.target.params))


def given_levels(settings: Settings) -> int:
    """Return the number of pruned levels if no size determines it."""
    return DEFAULT_LEVELS if settings.levels is None else settings.levels


def level_plan(settings: Settings, recipe: RecipeConfig, levels: int) -> Plan:
    """Return the rewind epoch and the length of each level under the run's recipe."""
    lengths = {"level_epochs": settings.level_epochs, "equal_budget": settings.equal_budget}
    return plan(own_recipe(recipe, settings.recipe), levels, rewind=settings.rewind_epoch, **lengths)


def _count(weights: Mapping[str, Tensor]) -> int:
    return sum(weight.numel() for weight in weights.values())
