"""The knobs of IMP."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from cuttlefish.limits import Checked, Within
from cuttlefish.methods.own_recipe import OwnRecipe
from cuttlefish.methods.target import Match, TargetSize, one_size


@dataclass(frozen=True)
class Settings(Checked):
    """The knobs of IMP.

    Attributes:
        levels: n, pruned levels after the dense level 0; with target_params or match the n nearest in size.
        fraction: Fraction of the remaining weights that a level drops.
        mode: exact_k drops exactly ceil(fraction · remaining); openlth one more and its ties, and counts the
            ignored layers among the remaining.
        ignore: Layers that are never pruned.
        rewind_epoch: k; None is one epoch after the warm-up, which is the paper's 6.
        level_epochs: Length of each level's schedule, trained from epoch k on; None is the recipe's.
        equal_budget: Shorten the levels until all of them together take the recipe's epochs.
        recipe: Replacements for the run's epochs, optimizer and schedule.
        decay_all: Weight decay on biases and norms too.
    """

    levels: Annotated[int | None, Within(0, 1000)] = None
    target_params: TargetSize = None
    match: Match = None
    fraction: Annotated[float, Within(0.001, 1, "[)")] = 0.2
    mode: Literal["exact_k", "openlth"] = "exact_k"
    ignore: list[str] = field(default_factory=list)
    rewind_epoch: Annotated[int | None, Within(0, 100_000)] = None
    level_epochs: Annotated[int | None, Within(1, 100_000)] = None
    equal_budget: bool = False
    recipe: OwnRecipe = field(default_factory=dict)
    decay_all: bool = False

    def contradictions(self) -> Iterator[str]:
        yield from one_size(self, "levels")
        if self.level_epochs is not None and self.equal_budget:
            yield "level_epochs: give level_epochs or equal_budget, not both: each sets a level's length"

    def outside(self, epochs: int) -> Iterator[str]:
        length = self.level_epochs or self.recipe.get("epochs", epochs)
        if self.rewind_epoch is not None and self.rewind_epoch >= length:
            yield f"rewind_epoch={self.rewind_epoch} lies outside a level's {length} epochs"
