"""GraSP (Wang, Zhang and Grosse, ICLR 2020): prune once, at initialisation, to maximise the gradient flow.

Every conv and linear weight gets the score -θ·(H·g) from a few samples; the highest scores are pruned, then
the network is trained as usual with the pruned weights held at zero.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from baselines import grasp_math
from baselines.grasp_math import Chunk
from cuttlefish.errors import CuttlefishError
from cuttlefish.limits import Checked, Within
from cuttlefish.lowrank.count import count_parameters
from cuttlefish.lowrank.decay import decay_groups
from cuttlefish.methods.base import Context, Phase
from cuttlefish.methods.masks import Masks, prunable
from cuttlefish.methods.own_recipe import OwnRecipe, all_decayed, own_recipe
from cuttlefish.methods.schedule import build_schedule
from cuttlefish.methods.target import Match, SizedMethod, TargetSize, one_size

RATIO = 0.9
Number = Annotated[int | None, Within(1, 10**6)]


class Grasp(SizedMethod):
    name = "grasp"
    no_fork = "prunes before the first step"

    @dataclass(frozen=True)
    class Settings(Checked):
        """The knobs of GraSP.

        Attributes:
            ratio: Fraction of the conv and linear weights to remove; 0.9 if no size is given either.
            samples_per_class: Samples per class for each of num_iters terms.
            images_per_iter: Samples of any class for each term instead (the original's method on ImageNet).
            chunk_size: Size of the parts of a draw, each with its own mean loss; None: two halves.
            shuffle_halves: Mix the classes over the parts; the original has the first classes in one and the
                last in the other.
            reinit_classifier: Score fresh weights of the last or of all linear layers, as the original does.
            mode: exact_k removes exactly round(ratio·N) weights; original, as its code, truncates and keeps
                one more.
            recipe: Replacements for the run's epochs, optimizer and schedule.
            decay_all: Weight decay on biases and norms too.
        """

        ratio: Annotated[float | None, Within(0, 1, "[)")] = None
        target_params: TargetSize = None
        match: Match = None
        samples_per_class: Annotated[int, Within(1, 10**6)] = 10
        images_per_iter: Number = None
        num_iters: Annotated[int, Within(1, 1000)] = 1
        temperature: Annotated[float, Within(0, 10**6, "(]")] = 200.0
        chunk_size: Number = None
        shuffle_halves: bool = True
        reinit_classifier: Literal["none", "last", "all"] = "none"
        mode: Literal["exact_k", "original"] = "exact_k"
        recipe: OwnRecipe = field(default_factory=dict)
        decay_all: bool = False

        def contradictions(self) -> Iterator[str]:
            yield from one_size(self, "ratio")

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
            grasp_math.check_enough(counts, chosen.samples_per_class)
        else:
            grasp_math.check_enough_of_any(sum(counts), chosen.images_per_iter, chosen.num_iters)
        self.removed = self._removed(context.model)

    def on_fit_start(self, context: Context) -> None:
        with context.section("scoring"):
            copy = self._copy(context.model)
            found = self._score(context, copy)
            masks = grasp_math.choose_masks(found, self.removed, self.settings.mode)
            self.masks = Masks(context.broadcast({name: mask.cpu() for name, mask in masks.items()}))
            self._examine(context, copy)
            # Use a new object: the other one lays out its masks like the trained weights.
            Masks(self.masks).apply(context.model)

    def phases(self, context: Context) -> Iterator[Phase]:
        own = own_recipe(context.recipe, self.settings.recipe)
        schedule = build_schedule(own.schedule, own.epochs)
        yield Phase("train", range(own.epochs), optimizer=own.optimizer, schedule=schedule)

    def param_groups(self, model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
        return (all_decayed if self.settings.decay_all else decay_groups)(model, weight_decay)

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
            removed = grasp_math.removals(ratio, total, chosen.mode)
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

    def _score(self, context: Context, copy: nn.Module) -> dict[str, Tensor]:
        return grasp_math.scores(copy, partial(self._parts, context), temperature=self.settings.temperature)

    def _parts(self, context: Context) -> Iterator[Chunk]:
        """Yield the drawn parts, drawn anew for each pass: cheaper than storing them for ImageNet."""
        chosen, samples = self.settings, grasp_math.Samples(chunks(context))
        for number in range(chosen.num_iters):
            if chosen.images_per_iter is None:
                # Give each its own order, as in the original: a draw that runs into the next repeats images.
                own_order = grasp_math.Samples(chunks(context, number))
                drawn = grasp_math.draw_per_class(
                    own_order, len(context.class_counts), chosen.samples_per_class
                )
            else:
                drawn = grasp_math.draw_any(samples, chosen.images_per_iter)
            shuffle = number if chosen.shuffle_halves else None
            yield from grasp_math.split_parts(drawn, chosen.chunk_size, shuffle)

    def _examine(self, context: Context, copy: nn.Module) -> None:
        """Warn of emptied layers; reject a network whose output no longer depends on its input."""
        emptied = self.masks.emptied
        if not emptied:
            return
        context.log(f"grasp has emptied {len(emptied)} of {len(self.masks)} layers: {', '.join(emptied)}")
        Masks(self.masks).apply(copy)
        if not context.broadcast(grasp_math.lets_signal_through(copy, context.example_batch().inputs)):
            raise CuttlefishError(
                f"grasp would empty {', '.join(emptied[:3])}, through which every signal passes, so nothing "
                "could be learned: keep more weights"
            )


def chunks(context: Context, order: int = 0) -> Iterator[Chunk]:
    """Return the run's samples as pairs of images and labels, beginning with the given order."""
    return ((batch.inputs, batch.targets) for batch in context.samples(order))
