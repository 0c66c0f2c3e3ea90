"""R: the rank of each layer at the switch, and which layers would gain nothing by theirs."""

from bisect import bisect_right
from collections.abc import Iterable
from math import floor
from typing import Any

from torch import Tensor, nn

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.count import count_parameters
from cuttlefish.lowrank.find import layer_of
from cuttlefish.lowrank.matrix import matrix_shape
from cuttlefish.lowrank.rank import RankTracker, clamp_rank
from cuttlefish.lowrank.rank.misaligned import misaligned_ranks
from cuttlefish.lowrank.settings import METRICS, Settings
from cuttlefish.lowrank.surgery import break_even, saves_nothing


def choose_ranks(
    tracker: RankTracker,
    layers: list[str],
    shortcuts: list[str],
    settings: Settings,
    *,
    rank_floor: float | None = None,
) -> dict[str, int]:
    """Return layer → rank by the latest ranks measured, or as the settings fix them.

    Args:
        tracker: The ranks measured.
        layers: The layers to factorize.
        shortcuts: Those of them beside the main path, and others.
        settings: The knobs.
        rank_floor: Instead of the settings' own.
    """
    lowest = settings.rank_floor if rank_floor is None else rank_floor
    bounds: dict[str, Any] = {"rank_floor": lowest, "round_to": settings.round_to}
    if settings.ranks is not None:
        return {name: settings.ranks[name] for name in layers if name in settings.ranks}
    if settings.rank_ratio is not None:
        shapes = {name: layer_of(tracker.model, name).weight.shape for name in layers}
        full = {name: min(matrix_shape(shape, settings.scheme)) for name, shape in shapes.items()}
        return {
            name: clamp_rank(floor(settings.rank_ratio * rank), rank, **bounds) for name, rank in full.items()
        }
    if settings.misaligned:
        return misaligned_ranks(tracker, layers, shortcuts, rank_floor=lowest)
    ranks_by = tracker.scaled_ranks if METRICS[settings.metric].scaled else tracker.stable_ranks
    found = ranks_by(floored=settings.floored, **bounds)
    return {name: found[name] for name in layers}


def within_budget(model: nn.Module, ranks: dict[str, int], settings: Settings) -> dict[str, int]:
    """Return the ranks, multiplied by the largest factor up to 1 that brings the model to `target_params`.

    Raises:
        CuttlefishError: Even with rank 1 everywhere the model has more parameters.
    """
    target = settings.target_params
    if target is None:
        return ranks
    total = count_parameters(model).total
    weights = {name: layer_of(model, name).weight for name in ranks}

    def at(thousandths: int) -> dict[str, int]:
        return {name: max(1, rank * thousandths // 1000) for name, rank in ranks.items()}

    def size(chosen: dict[str, int]) -> int:
        return total - sum(_saved(weights[name], rank, settings) for name, rank in chosen.items())

    if size(at(0)) > target:
        smallest = f"with rank 1 in all {len(ranks)} layers" if ranks else "with no layer to factorize"
        raise CuttlefishError(
            f"target_params={target:,} cannot be reached: {smallest} the model has {size(at(0)):,} parameters"
        )
    return at(bisect_right(range(1, 1001), target, key=lambda thousandths: size(at(thousandths))))


def _saved(weight: Tensor, rank: int, settings: Settings) -> int:
    """Return how many parameters a layer loses at a rank; 0 where it would stay dense."""
    m, n = matrix_shape(weight.shape, settings.scheme)
    beside = 2 * settings.extra_bn if weight.ndim == 4 else settings.first_bias
    return max(0, m * n - rank * (m + n + beside))


def useless(model: nn.Module, ranks: dict[str, int], settings: Settings) -> dict[str, str]:
    """Return the layers that stay dense at their rank: name → why."""
    reasons = {}
    for name, rank in ranks.items():
        layer = layer_of(model, name)
        if not layer.weight.requires_grad:
            reasons[name] = "it has been frozen"
        elif not layer.weight.any():
            reasons[name] = "its weight is still zero, so both factors would be zero and never learn"
        elif settings.keep_dense and rank >= break_even(layer, settings.scheme):
            reasons[name] = saves_nothing(layer, rank, settings.scheme)
    return reasons


def few(reasons: dict[str, str], names: Iterable[str] | None = None) -> str:
    """Return the first three reasons of these layers as one line."""
    told = {name: why for name, why in reasons.items() if names is None or name in set(names)}
    some = "; ".join(f"{name}: {why}" for name, why in list(told.items())[:3])
    return f"{some}; and {len(told) - 3} more" if len(told) > 3 else some
