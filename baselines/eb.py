"""EB: early-bird tickets (You et al., 2020): prune channels as soon as it is settled which ones will go.

Search: train the dense net with an L1 penalty on the batch norms' γ, and before each epoch mask the channels
of smallest |γ|. When the masks of the last epochs hardly differ the ticket is drawn; a physically smaller
network trains on from that epoch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from baselines.eb_channels import Chain, find_chains
from baselines.eb_math import (
    DISTANCES,
    THRESHOLDS,
    add_l1,
    channel_masks,
    drop_smallest,
    gammas,
    has_settled,
    nearest_drop,
    prove_slimming,
    reinitialise,
    slim,
    slim_size,
)
from cuttlefish.config.schema import RecipeConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.limits import Checked, Each, Within
from cuttlefish.lowrank.count import count_parameters
from cuttlefish.lowrank.decay import decay_groups
from cuttlefish.methods.base import Context, Method, Phase
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

DEFAULT_P = 0.5
"""Where neither p nor a size is given; the middle one of the authors' three."""
SETTLED, NEVER = "the channel masks settled", "the channel masks did not settle"


@dataclass(frozen=True)
class Settings(Checked):
    """p: fraction of the prunable channels (not parameters) that go; or target_params / match: before each
    epoch the p whose slim network is nearest in size, of p_grid or, if that is empty, of all.

    threshold: exact drops floor(p·n) channels; original one more, and ties. fifo, eps, distance: when masks
    have settled (see `has_settled`). guard: masks from before the first update do not count. max_epoch: the
    last epoch at which to draw (None: the last of the run); on_never: what happens there if nothing has
    settled, slim (all the same) or error. s: strength of the L1 on every γ; l1_retrain: while retraining too.
    gamma_init: γ at the start, None for the model's own. inherit_weights: the slim network goes on with the
    ticket's weights; False: with fresh ones, as the reference's code. recipe: what of the run's epochs,
    optimizer and schedule to replace. decay_all: weight decay on biases and norms too.
    """

    p: Annotated[float | None, Within(0, 1)] = None
    target_params: TargetSize = None
    match: Match = None
    p_grid: Annotated[list[float], Each(Within(0, 1))] = field(default_factory=list)
    threshold: Literal[*THRESHOLDS] = "exact"
    fifo: Annotated[int, Within(2, 1000)] = 5
    eps: Annotated[float, Within(0, 1)] = 0.1
    distance: Literal[*DISTANCES] = "newest_vs_queue"
    guard: bool = True
    max_epoch: Annotated[int | None, Within(0, 100_000)] = None
    on_never: Literal["slim", "error"] = "slim"
    s: Annotated[float, Within(0, 1000)] = 1e-4
    l1_retrain: bool = True
    gamma_init: Annotated[float | None, Within(0, 1000, "(]")] = None
    inherit_weights: bool = True
    recipe: OwnRecipe = field(default_factory=dict)
    decay_all: bool = False

    def contradictions(self) -> Iterator[str]:
        yield from one_size(self, "p")
        if self.p_grid and self.target_params is None and self.match is None:
            yield "p_grid is what target_params or match chooses from; without them give p"


class Eb(Method):
    """Phases: `search` until the ticket is drawn at epoch e*, then `retrain`, epochs e* … T − 1 of the same
    schedule."""

    name = "eb"
    Settings = Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        self.chains: list[Chain] = []
        self.history: list[Tensor] = []
        self.ticket: dict[str, Any] | None = None
        self._scales: list[nn.Parameter] = []
        self._target: Target | None = None

    def prepare(self, context: Context) -> None:
        self._check_time(self._recipe(context).epochs)
        self._find(context)
        self._target = resolve_target(self.settings, context)
        prove_slimming(context.model, self.chains, context.example_batch()[0])
        if self._target is not None:
            self._check_reachable(context.model, self._target)

    def on_fit_start(self, context: Context) -> None:
        _fill(self._scales, self.settings.gamma_init)

    def phases(self, context: Context) -> Iterator[Phase]:
        recipe = self._recipe(context)
        course = {"optimizer": recipe.optimizer, "schedule": build_schedule(recipe.schedule, recipe.epochs)}
        yield Phase("search", range(recipe.epochs), until=lambda: self.ticket is not None, **course)
        yield Phase("retrain", range(self.ticket["epoch"], recipe.epochs), enter=self._enter, **course)

    def on_epoch_start(self, context: Context, epoch: int) -> None:
        if self.ticket is None:
            with context.section("masks"):
                self._look(context, epoch)

    def param_groups(self, model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
        return (all_decayed if self.settings.decay_all else decay_groups)(model, weight_decay)

    def on_gradients(self, model: nn.Module) -> None:
        if self.ticket is None or self.settings.l1_retrain:
            add_l1(self._scales, self.settings.s)

    def on_fit_end(self, context: Context) -> dict[str, Any]:
        ticket = self.ticket
        kept = {chain.norm: count for chain, count in zip(self.chains, ticket["kept"], strict=True)}
        fields = {
            "switch_epoch": ticket["epoch"],
            "switch_reason": ticket["reason"],
            "p": ticket["p"],
            "channels": kept,
        }
        fields |= {
            "channels_full": {chain.norm: chain.channels for chain in self.chains},
            "inherit_weights": self.settings.inherit_weights,
        }
        return (
            fields
            if self._target is None
            else fields | {"target": self._target.report(count_parameters(context.model).total)}
        )

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "ticket": self.ticket} | target_state(self._target)

    def load_state_dict(self, context: Context, state: dict[str, Any]) -> None:
        self.history, self.ticket, self._target = (
            list(state["history"]),
            state["ticket"],
            target_from_state(state) or self._target,
        )
        if self.ticket is not None:
            slim(context.model, self.chains, self._split(self.ticket["mask"]))
            self._scales = _norm_scales(context.model)

    def _find(self, context: Context) -> None:
        self._scales = _norm_scales(context.model)
        if not self._scales:
            raise CuttlefishError(
                "eb ranks channels by their batch norms, and this model has none (with a scale): choose another method"
            )
        self.chains = find_chains(context.model, context.example_batch()[0])
        if not self.chains:
            raise CuttlefishError(
                "eb found no batch norm between a convolution and further layers, so no channel can be removed"
            )

    def _look(self, context: Context, epoch: int) -> None:
        """Before epoch `epoch`: note the scales, and draw the ticket if the masks have settled or time is
        up."""
        chosen = self.settings
        scales = context.broadcast(
            torch.cat([scale.detach().abs().double().cpu() for scale in gammas(context.model, self.chains)])
        )
        if epoch > 0 or not chosen.guard:
            self.history = [*self.history, scales][-(chosen.fifo + 1) :]
        mask_of = self._rule(context.model, scales)
        settled = has_settled(
            [mask_of(earlier) for earlier in self.history], chosen.fifo, chosen.eps, chosen.distance
        )
        if not settled and epoch < self._last(self._recipe(context).epochs):
            return
        if not settled and chosen.on_never == "error":
            raise CuttlefishError(
                f"no ticket up to epoch {epoch} (on_never=error): masks still change by more than eps={chosen.eps}"
            )
        self._draw(context, epoch, mask_of(scales), SETTLED if settled else NEVER)

    def _draw(self, context: Context, epoch: int, mask: Tensor, reason: str) -> None:
        kept = [int(part.sum()) for part in self._split(mask)]
        self.ticket = {
            "epoch": epoch,
            "reason": reason,
            "p": 1 - sum(kept) / len(mask),
            "mask": mask,
            "kept": kept,
        }
        size = slim_size(context.model, self.chains, kept)
        context.log(
            f"ticket at epoch {epoch}, {reason}: {sum(kept)} of {len(mask)} channels stay, {size:,} parameters"
        )

    def _rule(self, model: nn.Module, scales: Tensor) -> Callable[[Tensor], Tensor]:
        """From scales to mask, with the p that is given or, now, nearest to the target."""
        layers, threshold = self._layers, self.settings.threshold
        if self._target is None:
            p = DEFAULT_P if self.settings.p is None else self.settings.p
            return partial(channel_masks, layers=layers, p=p, threshold=threshold)
        size = partial(self._size, model)
        if self.settings.p_grid:
            rules = [
                partial(channel_masks, layers=layers, p=p, threshold=threshold)
                for p in sorted(self.settings.p_grid)
            ]
            return min(rules, key=lambda rule: abs(size(rule(scales)) - self._target.params))
        dropped = nearest_drop(
            lambda count: size(drop_smallest(scales, layers, count)), len(scales), self._target.params
        )
        return partial(drop_smallest, layers=layers, dropped=dropped)

    def _size(self, model: nn.Module, mask: Tensor) -> int:
        return slim_size(model, self.chains, [int(part.sum()) for part in self._split(mask)])

    def _enter(self, context: Context) -> None:
        with context.section("switch"):
            slim(context.model, self.chains, self._split(self.ticket["mask"]))
            self._scales = _norm_scales(context.model)
            if not self.settings.inherit_weights:
                reinitialise(context.model, context.device)
                _fill(self._scales, self.settings.gamma_init)

    def _check_time(self, epochs: int) -> None:
        """A ticket needs scales that were trained, and the masks that have to agree."""
        chosen, last = self.settings, self._last(epochs)
        if not 0 <= last < epochs:
            raise CuttlefishError(f"max_epoch={last} lies outside the run's {epochs} epochs")
        if chosen.guard and last == 0:
            raise CuttlefishError(
                f"eb would draw its ticket before the first update, from scales that are all equal (max_epoch={chosen.max_epoch}, {epochs} epochs): "
                "give it an epoch more"
            )
        masks, needed = last + (not chosen.guard), chosen.fifo + (chosen.distance == "consecutive")
        if chosen.on_never == "error" and masks < needed:
            raise CuttlefishError(
                f"fifo={chosen.fifo} needs {needed} masks to settle, and up to epoch {last} there are {masks}: with on_never=error no ticket is "
                "possible"
            )

    def _last(self, epochs: int) -> int:
        return epochs - 1 if self.settings.max_epoch is None else self.settings.max_epoch

    def _check_reachable(self, model: nn.Module, target: Target) -> None:
        whole, least = count_parameters(model).total, slim_size(model, self.chains, [1] * len(self.chains))
        if not least <= target.params <= whole:
            nearest = whole if target.params > whole else least
            raise CuttlefishError(
                f"{target.source} asks for {target.params} parameters; the nearest that eb can reach here is {nearest}"
            )

    @property
    def _layers(self) -> list[int]:
        return [chain.channels for chain in self.chains]

    def _split(self, mask: Tensor) -> tuple[Tensor, ...]:
        return mask.split(self._layers)

    def _recipe(self, context: Context) -> RecipeConfig:
        return own_recipe(context.recipe, self.settings.recipe)


def _norm_scales(model: nn.Module) -> list[nn.Parameter]:
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    return [norm.weight for norm in norms if norm.weight is not None]


@torch.no_grad()
def _fill(scales: list[nn.Parameter], value: float | None) -> None:
    for scale in scales if value is not None else []:
        scale.fill_(value)
