"""The knobs of EB."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from cuttlefish.limits import Checked, Each, Within
from cuttlefish.methods.own_recipe import OwnRecipe
from cuttlefish.methods.target import Match, TargetSize, one_size


@dataclass(frozen=True)
class Settings(Checked):
    """The knobs of EB.

    Attributes:
        p: Fraction of the prunable channels (not parameters) to remove. With target_params or match it is
            chosen before each epoch for the slim network nearest in size, from p_grid if that is not empty.
        threshold: exact drops floor(p·n) channels; original one more, and ties.
        fifo, eps, distance: Criterion for stable masks (see `has_settled`).
        guard: Ignore masks from before the first update.
        max_epoch: The last epoch at which to draw (None: the last of the run).
        on_never: What to do then if masks are not stable: slim all the same, or raise an error.
        s: Strength of the L1 penalty on every γ; with l1_retrain also while retraining.
        gamma_init: Initial γ, None for the model's own.
        inherit_weights: Whether the slim network keeps the ticket's weights or, as in the reference code,
            gets fresh ones.
        recipe: Replacements for the run's epochs, optimizer and schedule.
        decay_all: Weight decay on biases and norms too.
    """

    p: Annotated[float | None, Within(0, 1)] = None
    target_params: TargetSize = None
    match: Match = None
    p_grid: Annotated[list[float], Each(Within(0, 1))] = field(default_factory=list)
    threshold: Literal["exact", "original"] = "exact"
    fifo: Annotated[int, Within(2, 1000)] = 5
    eps: Annotated[float, Within(0, 1)] = 0.1
    distance: Literal["newest_vs_queue", "consecutive"] = "newest_vs_queue"
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

    def outside(self, epochs: int) -> Iterator[str]:
        epochs = self.recipe.get("epochs", epochs)
        if self.max_epoch is not None and self.max_epoch >= epochs:
            yield f"max_epoch={self.max_epoch} lies outside the run's {epochs} epochs"
