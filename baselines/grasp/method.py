"""GraSP (Wang, Zhang and Grosse, ICLR 2020): prune once, at initialisation, to maximise the gradient flow.

Every conv and linear weight gets the score -θ·(H·g) from a few samples; the highest scores are pruned, then
the network is trained as usual with the pruned weights held at zero.
"""

from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from baselines.grasp.scores import (
    Chunk,
    Samples,
    check_enough,
    check_enough_of_any,
    choose_masks,
    draw_any,
    draw_per_class,
    lets_signal_through,
    removals,
    scores,
    split_parts,
)
from baselines.grasp.settings import Settings
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.count import count_parameters
from cuttlefish.methods.base import Context, Phase
from cuttlefish.methods.masks import Masks, prunable
from cuttlefish.methods.own_recipe import own_recipe
from cuttlefish.methods.schedule import build_schedule
from cuttlefish.methods.sized import SizedMethod

RATIO = 0.9


class Grasp(SizedMethod):
    name = "grasp"
    no_fork = "prunes before the first step"
    Settings = Settings
    masks: Masks

    def prepare(self, context: Context) -> None:
        super().prepare(context)
        chosen, counts = self.settings, context.class_counts
        own_recipe(context.recipe, chosen.recipe)
        if not counts or not isinstance(context.example_batch().inputs, Tensor):
            raise CuttlefishError(
                "grasp scores weights on samples of every class with inputs of one shape, "
                "which this task does not have: choose another method"
            )
        if chosen.images_per_iter is None:
            check_enough(counts, chosen.samples_per_class)
        else:
            check_enough_of_any(sum(counts), chosen.images_per_iter, chosen.num_iters)
        self.removed = self._removed(context.model)

    def on_fit_start(self, context: Context) -> None:
        with context.section("scoring"):
            copy = self._copy(context.model)
            found = scores(copy, partial(self._parts, context), temperature=self.settings.temperature)
            masks = choose_masks(found, self.removed, self.settings.mode)
            self.masks = Masks(context.broadcast({name: mask.cpu() for name, mask in masks.items()}))
            self._examine(context, copy)
            # Use a new object: the other one lays out its masks like the trained weights.
            Masks(self.masks).apply(context.model)

    def phases(self, context: Context) -> Iterator[Phase]:
        own = own_recipe(context.recipe, self.settings.recipe)
        schedule = build_schedule(own.schedule, own.epochs)
        yield Phase("train", range(own.epochs), optimizer=own.optimizer, schedule=schedule)

    def on_step_end(self, model: nn.Module) -> None:
        # Decay and momentum move pruned weights off zero; reset them right after the step.
        self.masks.apply(model)

    def on_fit_end(self, context: Context) -> dict[str, Any]:
        kept, total = self.masks.kept, self.masks.total
        achieved = count_parameters(context.model).total - total + kept
        by_layer = {name.removesuffix(".weight"): int(mask.sum()) for name, mask in self.masks.items()}
        fields = {"kept": kept, "prunable": total, "params_pruned_to": achieved}
        fields |= {"emptied_layers": self.masks.emptied, "kept_by_layer": by_layer}
        return self.with_target(fields, achieved)

    def state_dict(self) -> dict[str, Any]:
        return {"masks": self.masks.state_dict()} | super().state_dict()

    def load_state_dict(self, context: Context, state: dict[str, Any]) -> None:
        super().load_state_dict(context, state)
        self.masks = Masks(state["masks"])

    def _removed(self, model: nn.Module) -> int:
        """Return how many weights to remove. Raises CuttlefishError for a size that pruning cannot reach."""
        chosen, params = self.settings, count_parameters(model).total
        total = sum(weight.numel() for weight in prunable(model).values())
        if total == 0:
            raise CuttlefishError("grasp prunes conv and linear weights, and this model has none")
        if self.target is None:
            ratio = RATIO if chosen.ratio is None else chosen.ratio
            removed = removals(ratio, total, chosen.mode)
            if removed >= total:
                raise CuttlefishError(
                    f"grasp: ratio={ratio} would remove all {total:,} weights; choose a lower one"
                )
            return removed
        self.check_reachable(params - total + 1, params)
        removed = params - self.target.params
        # The original keeps one of the weights to remove.
        return removed + 1 if removed and chosen.mode == "original" else removed

    # Scoring

    def _copy(self, model: nn.Module) -> nn.Module:
        """Return the copy to score: the weights in train mode, with a fresh classifier if requested."""
        copy = deepcopy(model).train()
        linear = [module for module in copy.modules() if isinstance(module, nn.Linear)]
        afresh = {"none": [], "last": linear[-1:], "all": linear}[self.settings.reinit_classifier]
        generator = torch.Generator().manual_seed(torch.initial_seed())
        for layer in afresh:
            drawn = torch.empty(layer.weight.shape)
            nn.init.xavier_normal_(drawn, generator=generator)
            layer.weight.data.copy_(drawn)
        return copy

    def _parts(self, context: Context) -> Iterator[Chunk]:
        """Yield the drawn parts, drawn anew for each pass: cheaper than storing them for ImageNet."""
        chosen, samples = self.settings, Samples(chunks(context))
        for number in range(chosen.num_iters):
            if chosen.images_per_iter is None:
                # Give each its own order, as in the original: a draw that runs into the next repeats images.
                own_order = Samples(chunks(context, number))
                drawn = draw_per_class(own_order, len(context.class_counts), chosen.samples_per_class)
            else:
                drawn = draw_any(samples, chosen.images_per_iter)
            shuffle = number if chosen.shuffle_halves else None
            yield from split_parts(drawn, chosen.chunk_size, shuffle)

    def _examine(self, context: Context, copy: nn.Module) -> None:
        """Warn of emptied layers; reject a network whose output no longer depends on its input."""
        emptied = self.masks.emptied
        if not emptied:
            return
        context.log(f"grasp has emptied {len(emptied)} of {len(self.masks)} layers: {', '.join(emptied)}")
        Masks(self.masks).apply(copy)
        if not context.broadcast(lets_signal_through(copy, context.example_batch().inputs)):
            raise CuttlefishError(
                f"grasp would empty {', '.join(emptied[:3])}, through which every signal passes, so nothing "
                "could be learned: keep more weights"
            )


def chunks(context: Context, order: int = 0) -> Iterator[Chunk]:
    """Return the run's samples as pairs of images and labels, beginning with the given order."""
    return ((batch.inputs, batch.targets) for batch in context.samples(order))
