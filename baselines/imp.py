"""IMP: iterative magnitude pruning with rewinding (Frankle et al., 2020, as their open_lth repository does
it).

Train k epochs and keep that state; then, a level at a time, train on to the end, drop a fifth of the weights
that are left (the smallest of the whole network), put the rest back to the kept state and train again. The
zeros bring no speed and none is credited: all levels are charged.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal

from torch import Tensor, nn

from baselines.imp_math import MODES, Plan, ladder, next_masks, plan, shortened
from cuttlefish.config.schema import RecipeConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.limits import Checked, Within
from cuttlefish.lowrank.count import count_parameters
from cuttlefish.lowrank.decay import decay_groups
from cuttlefish.methods.base import Context, Method, Phase
from cuttlefish.methods.masks import Masks, prunable
from cuttlefish.methods.own_recipe import OwnRecipe, all_decayed, own_recipe
from cuttlefish.methods.schedule import build_schedule
from cuttlefish.methods.target import (
    Match,
    Target,
    TargetSize,
    one_size,
    resolve_target,
    target_from_state,
    target_state,
)

DEFAULT_LEVELS = 8
"""Where neither levels nor a size is given; 5.9 times smaller, the paper's size for ResNet-18 on CIFAR-10."""


@dataclass(frozen=True)
class Settings(Checked):
    """levels: n, pruned levels after the dense level 0; or target_params / match: the n whose size is
    nearest.

    fraction: of the remaining weights that a level drops. mode: exact_k drops exactly ceil(fraction ·
    remaining); openlth one more, and what ties with it, and counts the ignored layers among the remaining.
    ignore: layers that are never pruned. rewind_epoch: k; None is one epoch after the warm-up, which is the
    paper's 6. level_epochs: length of the schedule that each level follows, of which it trains what is behind
    k; None is the recipe's. equal_budget: shorten the levels until all of them together take the recipe's
    epochs. recipe: what of the run's epochs, optimizer and schedule to replace. decay_all: weight decay on
    biases and norms too.
    """

    levels: Annotated[int | None, Within(0, 1000)] = None
    target_params: TargetSize = None
    match: Match = None
    fraction: Annotated[float, Within(0.001, 1, "[)")] = 0.2
    mode: Literal[*MODES] = "exact_k"
    ignore: list[str] = field(default_factory=list)
    rewind_epoch: Annotated[int | None, Within(0, 100_000)] = None
    level_epochs: Annotated[int | None, Within(1, 100_000)] = None
    equal_budget: bool = False
    recipe: OwnRecipe = field(default_factory=dict)
    decay_all: bool = False

    def contradictions(self) -> Iterator[str]:
        yield from one_size(self, "levels")
        if self.level_epochs is not None and self.equal_budget:
            yield "level_epochs: give level_epochs or equal_budget, not both: each sets how long a level trains"


class Imp(Method):
    """Phases: `pretrain` (epochs 0 … k − 1), then `level 0` … `level n`, each from epoch k to the end of its
    schedule."""

    name = "imp"
    Settings = Settings
    levels: int
    plan: Plan

    def __init__(self, settings: Settings):
        super().__init__(settings)
        self.target: Target | None = None
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
        self.target = resolve_target(self.settings, context)
        self.levels = self._choose_levels(self._sizes(context.model), self.target)
        self.plan = level_plan(self.settings, context.recipe, self.levels)

    def phases(self, context: Context) -> Iterator[Phase]:
        found = self.plan
        recipe = own_recipe(context.recipe, self.settings.recipe)
        schedules = [build_schedule(shortened(recipe, length).schedule, length) for length in found.lengths]
        optimizer = recipe.optimizer
        if found.rewind:
            yield Phase("pretrain", range(found.rewind), optimizer=optimizer, schedule=schedules[0])
        for level, (length, schedule) in enumerate(zip(found.lengths, schedules, strict=True)):
            epochs = range(found.rewind, length)
            yield Phase(
                f"level {level}",
                epochs,
                optimizer=optimizer,
                schedule=schedule,
                enter=partial(self._enter, level),
            )

    def param_groups(self, model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
        return (all_decayed if self.settings.decay_all else decay_groups)(model, weight_decay)

    def on_step_end(self, model: nn.Module) -> None:
        # Decay and momentum move pruned entries off zero; put back right after the step they never reach a
        # forward.
        if self.masks is not None:
            self.masks.apply(model)

    def on_fit_end(self, context: Context) -> dict[str, Any]:
        found = self.plan
        fields = {"levels": self.levels, "kept": self.kept, "emptied_layers": self.emptied}
        fields |= {
            "rewind_epoch": found.rewind,
            "level_epochs": list(found.lengths),
            "params_pruned_to": self._achieved(context.model),
        }
        if self.target is None:
            return fields
        sizes = self._sizes(context.model)
        other = _nearest([level for level in range(len(sizes)) if level != self.levels], sizes, self.target)
        neighbour = None if other is None else {"levels": other, "params": sizes[other]}
        return fields | {"target": self.target.report(self._achieved(context.model)), "neighbour": neighbour}

    def state_dict(self) -> dict[str, Any]:
        masks = None if self.masks is None else self.masks.state_dict()
        state = {
            "levels": self.levels,
            "rewind": self.rewind,
            "masks": masks,
            "kept": self.kept,
            "emptied": self.emptied,
        }
        return state | target_state(self.target)

    def load_state_dict(self, context: Context, state: dict[str, Any]) -> None:
        self.levels, self.kept, self.emptied = state["levels"], list(state["kept"]), list(state["emptied"])
        self.plan = level_plan(self.settings, context.recipe, self.levels)
        self.rewind = dict(state["rewind"])
        self.masks = None if state["masks"] is None else Masks(state["masks"])
        self.target = target_from_state(state) or self.target

    def _enter(self, level: int, context: Context) -> None:
        """Level 0 keeps the state to rewind to; a later level prunes what the level before has trained, and
        rewinds."""
        model = context.model
        if level == 0:
            self.rewind = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            self.kept = [sum(weight.numel() for weight in prunable(model).values())]
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
        masks = next_masks(
            prunable(model), self.masks or {}, fraction=chosen.fraction, mode=chosen.mode, ignore=ignored
        )
        return {name: mask.cpu() for name, mask in masks.items()}

    def _say_emptied(self, level: int, context: Context) -> None:
        self.emptied = [name.removesuffix(".weight") for name, mask in self.masks.items() if not mask.any()]
        if self.emptied:
            context.log(f"level {level} leaves no weight in {', '.join(self.emptied)}")

    def _achieved(self, model: nn.Module) -> int:
        weights = sum(weight.numel() for weight in prunable(model).values())
        return count_parameters(model).total - weights + (weights if self.masks is None else self.masks.kept)

    def _sizes(self, model: nn.Module) -> list[int]:
        """All parameters that are left after 0, 1, 2, … levels, as far as every layer can keep a weight."""
        weights = prunable(model)
        if not weights:
            raise CuttlefishError("imp prunes convolutions and linear layers, and this model has none")
        layers = [name.removesuffix(".weight") for name in weights]
        for name in self.settings.ignore:
            if name not in layers:
                raise CuttlefishError(
                    f"ignore names {name!r}, which is no convolution or linear layer of this model: {', '.join(layers)}"
                )
        ignored = {
            name: weight
            for name, weight in weights.items()
            if name.removesuffix(".weight") in self.settings.ignore
        }
        if len(ignored) == len(weights):
            raise CuttlefishError("ignore names every layer, which leaves nothing to prune")
        spared, rest = _count(ignored), count_parameters(model).total - _count(weights)
        kept = ladder(
            _count(weights) - spared,
            spared,
            self.settings.fraction,
            self.settings.mode,
            least=len(weights) - len(ignored),
        )
        return [rest + spared + alive for alive in kept]

    def _choose_levels(self, sizes: list[int], target: Target | None) -> int:
        if target is None:
            levels = given_levels(self.settings)
            if levels >= len(sizes):
                raise CuttlefishError(
                    f"levels={levels} would empty layers of this model: {len(sizes) - 1} at most leave a weight for each"
                )
            return levels
        if not sizes[-1] <= target.params <= sizes[0]:
            nearest = sizes[0] if target.params > sizes[0] else sizes[-1]
            raise CuttlefishError(
                f"{target.source} asks for {target.params} parameters; the nearest that imp can reach here is {nearest}"
            )
        return _nearest(range(len(sizes)), sizes, target)


def given_levels(settings: Settings) -> int:
    """Return how many levels are pruned where no size decides it."""
    return DEFAULT_LEVELS if settings.levels is None else settings.levels


def level_plan(settings: Settings, recipe: RecipeConfig, levels: int) -> Plan:
    """Return the rewind epoch and the length of each level under the run's recipe."""
    return plan(
        own_recipe(recipe, settings.recipe),
        levels,
        rewind=settings.rewind_epoch,
        level_epochs=settings.level_epochs,
        equal_budget=settings.equal_budget,
    )


def _count(weights: Mapping[str, Tensor]) -> int:
    return sum(weight.numel() for weight in weights.values())


def _nearest(levels: Any, sizes: list[int], target: Target) -> int | None:
    return min(levels, key=lambda level: abs(sizes[level] - target.params), default=None)
