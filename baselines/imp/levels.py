"""Mathematics of IMP: which weights to prune, how many are left after n levels, and the levels' lengths."""

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from cuttlefish.config.recipe import RecipeConfig
from cuttlefish.errors import CuttlefishError


def number_to_prune(alive: int, ignored: int, fraction: float, mode: str) -> int:
    """Return how many of `alive` prunable weights one level drops if no magnitudes tie.

    Args:
        ignored: Number of weights in the layers that are not pruned.
        mode: exact_k: ceil(fraction · alive), in exact arithmetic. openlth: its 0-based threshold drops one
            more, and the fraction is taken of all ones in the mask, ignored layers included.
    """
    if mode == "openlth":
        return math.ceil(fraction * (alive + ignored)) + 1
    return math.ceil(Fraction(str(fraction)) * alive)


def ladder(alive: int, ignored: int, fraction: float, mode: str, least: int = 1) -> list[int]:
    """Return the number of prunable weights after 0, 1, 2, … levels, while at least `least` are left."""
    found = []
    while alive >= max(least, 1):
        found.append(alive)
        alive -= number_to_prune(alive, ignored, fraction, mode)
    return found


@torch.no_grad()
def next_masks(
    weights: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    *,
    fraction: float,
    mode: str = "exact_k",
    ignore: Set[str] = frozenset(),
) -> dict[str, Tensor]:
    """Return the next level's masks from the weights at the end of this one; one threshold over all tensors.

    Args:
        masks: This level's, True where kept; a tensor without one is whole. Only kept entries are considered.
        mode: Of ties, exact_k drops the first by (|w|, order of the tensors, index); openlth drops all of
            them.
        ignore: Tensors that are never pruned.

    Raises:
        CuttlefishError: Nothing would be left.
    """
    whole = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    now = whole | {name: mask.to(weights[name].device) for name, mask in masks.items()}
    names = [name for name in weights if name not in ignore]
    flat = torch.cat([now[name].reshape(-1) for name in names])
    magnitudes = torch.cat([weights[name].detach().reshape(-1) for name in names]).abs()
    candidates = flat.nonzero().squeeze(1)
    ignored = sum(int(now[name].sum()) for name in ignore if name in now)
    keep = candidates.bool()
    if len(candidates):
        keep = _survivors(magnitudes[candidates], ignored, fraction, mode)
    if not keep.any():
        what = f"pruning {fraction} of the remaining weights (mode={mode})"
        raise CuttlefishError(f"{what} would leave none: fewer levels, or other ties")
    flat[candidates] = keep
    parts = flat.split([now[name].numel() for name in names])
    return now | {name: part.view(now[name].shape).clone() for name, part in zip(names, parts, strict=True)}


def _survivors(magnitudes: Tensor, ignored: int, fraction: float, mode: str) -> Tensor:
    """Return which of the remaining magnitudes (1-D) to keep."""
    count = min(number_to_prune(len(magnitudes), ignored, fraction, mode), len(magnitudes))
    threshold = _smallest(magnitudes, count)
    if mode == "openlth":
        return magnitudes > threshold
    below, ties = magnitudes < threshold, magnitudes == threshold
    return ~below & ~(ties & (ties.cumsum(0) <= count - below.sum()))


def _smallest(values: Tensor, k: int) -> Tensor:
    """Return the k-th smallest. On a CPU selection is faster than a sort; deterministic GPUs forbid it."""
    return values.kthvalue(k).values if values.device.type == "cpu" else values.sort().values[k - 1]


@dataclass(frozen=True)
class Plan:
    """The rewind epoch k and each level's schedule length; level l trains epochs k … lengths[l] − 1 of it."""

    rewind: int
    lengths: tuple[int, ...]

    @property
    def epochs(self) -> int:
        """Number of epochs of all phases together."""
        return self.rewind + sum(length - self.rewind for length in self.lengths)


def plan(
    recipe: RecipeConfig,
    levels: int,
    *,
    rewind: int | None,
    level_epochs: int | None = None,
    equal_budget: bool = False,
) -> Plan:
    """Plan how long each level trains.

    By default each level follows the whole recipe; `level_epochs` sets another length for all. `equal_budget`
    sets the greatest length at which all levels fit into the recipe's epochs; the last one gets the rest.

    Raises:
        CuttlefishError: That is not possible.
    """
    total = recipe.epochs
    if not equal_budget:
        length = total if level_epochs is None else level_epochs
        return Plan(_rewind(recipe, length, rewind), (length,) * (levels + 1))
    for length in range(total, 0, -1):
        if rewind is not None and rewind >= length:
            break
        found = Plan(_rewind(recipe, length, rewind), (length,) * (levels + 1))
        if found.epochs <= total:
            return replace(found, lengths=(*found.lengths[:-1], length + total - found.epochs))
    raise CuttlefishError(
        f"{levels + 1} levels (counting the dense one) after rewind epoch {rewind or 0} do not fit into "
        f"{total} epochs"
    )


def shortened(recipe: RecipeConfig, epochs: int) -> RecipeConfig:
    """Return the recipe in fewer epochs: milestones are fractions, the warm-up shrinks in proportion."""
    warmup = round(recipe.schedule.warmup_epochs * epochs / recipe.epochs)
    return replace(recipe, epochs=epochs, schedule=replace(recipe.schedule, warmup_epochs=warmup))


def _rewind(recipe: RecipeConfig, length: int, given: int | None) -> int:
    """Return k; by default one epoch after the warm-up, if there is room."""
    if length < 1 or (given is not None and not 0 <= given < length):
        raise CuttlefishError(f"rewind_epoch={given} lies outside a level's {length} epochs")
    return min(shortened(recipe, length).schedule.warmup_epochs + 1, length - 1) if given is None else given
