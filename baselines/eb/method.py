"""EB: early-bird tickets (You et al., 2020), which prune channels as soon as the pruning mask is stable.

Search: train the dense net with an L1 penalty on the batch norms' γ, and before each epoch mask the channels
with the smallest |γ|. When the masks of the last epochs hardly differ, draw the ticket; a physically smaller
network continues training from that epoch.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from baselines.eb.channels import Chain, find_chains, gammas, slim, slim_size
from baselines.eb.masks import add_l1, channel_masks, drop_smallest, has_settled, nearest_drop, reinitialise
from baselines.eb.settings import Settings
from cuttlefish.config.recipe import RecipeConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.count import count_parameters
from cuttlefish.methods.base import Context, Phase
from cuttlefish.methods.own_recipe import own_recipe
from cuttlefish.methods.schedule import build_schedule
from cuttlefish.methods.sized import SizedMethod

DEFAULT_P = 0.5
"""Default without p and a size; the middle one of the authors' three."""
SETTLED, NEVER = "the channel masks settled", "the channel masks did not settle"


class Eb(SizedMethod):
    """Phases: `search` until the ticket is drawn at epoch e*, then `retrain`, epochs e* … T − 1."""

    name = "eb"
    Settings = Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        self.chains: list[Chain] = []
        self.history: list[Tensor] = []
        self.ticket: dict[str, Any] | None = None
        self._scales: list[nn.Parameter] = []

    def prepare(self, context: Context) -> None:
        super().prepare(context)
        model, images = context.model, context.example_batch().inputs
        self._check_time(self._recipe(context).epochs)
        self._scales = _norm_scales(model)
        if not self._scales:
            raise CuttlefishError(
                "eb ranks channels by their batch norms, and this model has none (with a scale): "
                "choose another method"
            )
        self.chains = find_chains(model, images)
        if not self.chains:
            raise CuttlefishError(
                "eb found no channel that can be removed: it takes a batch norm between a convolution and "
                "layers that work with fewer channels"
            )
        least = slim_size(model, self.chains, [1] * len(self.chains))
        self.check_reachable(least, count_parameters(model).total)

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

    def on_gradients(self, model: nn.Module) -> None:
        if self.ticket is None or self.settings.l1_retrain:
            add_l1(self._scales, self.settings.s)

    def on_fit_end(self, context: Context) -> dict[str, Any]:
        ticket = self.ticket
        fields = {
            "switch_epoch": ticket["epoch"],
            "switch_reason": ticket["reason"],
            "p": ticket["p"],
            "channels": {chain.norm: count for chain, count in zip(self.chains, ticket["kept"], strict=True)},
            "channels_full": {chain.norm: chain.channels for chain in self.chains},
            "inherit_weights": self.settings.inherit_weights,
        }
        return self.with_target(fields, count_parameters(context.model).total)

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "ticket": self.ticket} | super().state_dict()

    def load_state_dict(self, context: Context, state: dict[str, Any]) -> None:
        super().load_state_dict(context, state)
        self.history, self.ticket = list(state["history"]), state["ticket"]
        if self.ticket is not None:
            self._slim(context.model)

    def _look(self, context: Context, epoch: int) -> None:
        """Record the scales before epoch `epoch`, and draw the ticket if masks are stable or time is up."""
        chosen = self.settings
        found = [scale.detach().abs().double().cpu() for scale in gammas(context.model, self.chains)]
        scales = context.broadcast(torch.cat(found))
        if epoch > 0 or not chosen.guard:
            self.history = [*self.history, scales][-(chosen.fifo + 1) :]
        mask_of = self._rule(context.model, scales)
        masks = [mask_of(earlier) for earlier in self.history]
        settled = has_settled(masks, chosen.fifo, chosen.eps, chosen.distance)
        if not settled and epoch < self._last(self._recipe(context).epochs):
            return
        if not settled and chosen.on_never == "error":
            raise CuttlefishError(
                f"no ticket up to epoch {epoch} (on_never=error): masks still change by more than "
                f"eps={chosen.eps}"
            )
        self._draw(context, epoch, mask_of(scales), SETTLED if settled else NEVER)

    def _draw(self, context: Context, epoch: int, mask: Tensor, reason: str) -> None:
        kept = self._counts(mask)
        p = 1 - sum(kept) / len(mask)
        self.ticket = {"epoch": epoch, "reason": reason, "p": p, "mask": mask, "kept": kept}
        size = slim_size(context.model, self.chains, kept)
        context.log(
            f"ticket at epoch {epoch}, {reason}: {sum(kept)} of {len(mask)} channels stay, {size:,} "
            "parameters"
        )

    def _rule(self, model: nn.Module, scales: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the map from scales to mask, with the given p or the one now nearest to the target."""
        chosen, layers = self.settings, self._layers
        by_p = partial(channel_masks, layers=layers, threshold=chosen.threshold)
        if self.target is None:
            return partial(by_p, p=DEFAULT_P if chosen.p is None else chosen.p)

        def size(mask: Tensor) -> int:
            return slim_size(model, self.chains, self._counts(mask))

        wanted = self.target.params
        if chosen.p_grid:
            rules = [partial(by_p, p=p) for p in sorted(chosen.p_grid)]
            return min(rules, key=lambda rule: abs(size(rule(scales)) - wanted))
        dropped = nearest_drop(lambda count: size(drop_smallest(scales, layers, count)), len(scales), wanted)
        return partial(drop_smallest, layers=layers, dropped=dropped)

    def _enter(self, context: Context) -> None:
        with context.section("switch"):
            self._slim(context.model)
            if not self.settings.inherit_weights:
                reinitialise(context.model, context.device)
                _fill(self._scales, self.settings.gamma_init)

    def _slim(self, model: nn.Module) -> None:
        slim(model, self.chains, self._split(self.ticket["mask"]))
        self._scales = _norm_scales(model)

    def _check_time(self, epochs: int) -> None:
        """Reject settings without enough epochs for trained scales and the masks that must agree."""
        chosen, last = self.settings, self._last(epochs)
        if not 0 <= last < epochs:
            raise CuttlefishError(f"max_epoch={last} lies outside the run's {epochs} epochs")
        if chosen.guard and last == 0:
            raise CuttlefishError(
                "eb would draw its ticket before the first update, from scales that are all equal "
                f"(max_epoch={chosen.max_epoch}, {epochs} epochs): give it an epoch more"
            )
        masks, needed = last + (not chosen.guard), chosen.fifo + (chosen.distance == "consecutive")
        if chosen.on_never == "error" and masks < needed:
            raise CuttlefishError(
                f"fifo={chosen.fifo} needs {needed} masks to settle, and up to epoch {last} there are "
                f"{masks}: with on_never=error no ticket is possible"
            )

    def _last(self, epochs: int) -> int:
        return epochs - 1 if self.settings.max_epoch is None else self.settings.max_epoch

    @property
    def _layers(self) -> list[int]:
        return [chain.channels for chain in self.chains]

    def _split(self, mask: Tensor) -> tuple[Tensor, ...]:
        return mask.split(self._layers)

    def _counts(self, mask: Tensor) -> list[int]:
        return [int(part.sum()) for part in self._split(mask)]

    def _recipe(self, context: Context) -> RecipeConfig:
        return own_recipe(context.recipe, self.settings.recipe)


def _norm_scales(model: nn.Module) -> list[nn.Parameter]:
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    return [norm.weight for norm in norms if norm.weight is not None]


@torch.no_grad()
def _fill(scales: list[nn.Parameter], value: float | None) -> None:
    for scale in scales if value is not None else []:
        scale.fill_(value)
