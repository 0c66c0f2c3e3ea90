"""R: the rank of each layer at the switch, and which layers would gain nothing by theirs."""

from collections.abc import Iterable
from math import floor

from torch import nn

from cuttlefish.lowrank.matrix import matrix_shape
from cuttlefish.lowrank.misaligned import misaligned_ranks
from cuttlefish.lowrank.rank import RankTracker, clamp_rank
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
    bounds = {"rank_floor": lowest, "round_to": settings.round_to}
    if settings.ranks is not None:
        return {name: settings.ranks[name] for name in layers if name in settings.ranks}
    if settings.rank_ratio is not None:
        shapes = {name: tracker.model.get_submodule(name).weight.shape for name in layers}
        full = {name: min(matrix_shape(shape, settings.scheme)) for name, shape in shapes.items()}
        return {
            name: clamp_rank(floor(settings.rank_ratio * rank), rank, **bounds) for name, rank in full.items()
        }
    if settings.misaligned:
        return misaligned_ranks(tracker, layers, shortcuts, rank_floor=lowest)
    scaled = METRICS[settings.metric].scaled
    found = (
        tracker.scaled_ranks(floored=settings.floored, **bounds) if scaled else tracker.stable_ranks(**bounds)
    )
    return {name: found[name] for name in layers}


def useless(model: nn.Module, ranks: dict[str, int], settings: Settings) -> dict[str, str]:
    """Return the layers that stay dense at their rank: name → why."""
    reasons = {}
    for name, rank in ranks.items():
        layer = model.get_submodule(name)
        if not layer.weight.any():
            reasons[name] = "its weight is still zero, so both factors would be zero and never learn"
        elif settings.keep_dense and rank >= break_even(layer, settings.scheme):
            reasons[name] = saves_nothing(layer, rank, settings.scheme)
    return reasons


def few(reasons: dict[str, str], names: Iterable[str] | None = None) -> str:
    """Return the first three reasons of these layers as one line."""
    told = {name: why for name, why in reasons.items() if names is None or name in set(names)}
    some = "; ".join(f"{name}: {why}" for name, why in list(told.items())[:3])
    return f"{some}; and {len(told) - 3} more" if len(told) > 3 else some
