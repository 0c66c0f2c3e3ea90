"""The ranks of the reference's code for ImageNet, whose lists of β, R and stable ranks are out of step.

Its stable ranks come as [shortcut, layers], its β as [shortcut, all layers in order of registration, the
shortcut again and layers that are not factorized among them], its R in order of registration. All three are
then read by position, so most layers are scaled by another layer's β and bounded by another one's R.
"""

from collections.abc import Sequence
from math import ceil, floor

from cuttlefish.lowrank.rank.tracker import RankTracker, clamp_rank


def misaligned_ranks(
    tracker: RankTracker, layers: Sequence[str], shortcuts: Sequence[str], *, rank_floor: float = 0.0
) -> dict[str, int]:
    """Return the rank of each layer at its latest update, by the β and R of the layer in its position.

    Args:
        tracker: The ranks of all tracked layers, in order of registration.
        layers: The factorized ones.
        shortcuts: The 1×1 convolutions beside the main path; those among `layers` come first in two lists.
        rank_floor: The lowest rank as a fraction of R.
    """
    first = [name for name in layers if name in shortcuts]
    order = [*first, *(name for name in layers if name not in shortcuts)]
    scaled_by, bounded_by = [*first, *tracker.history], layers
    return {
        name: _rank(tracker, name, scale, bound, rank_floor)
        for name, scale, bound in zip(order, scaled_by, bounded_by, strict=False)
    }


def _rank(tracker: RankTracker, name: str, scale: str, bound: str, rank_floor: float) -> int:
    beta = tracker.full[scale] / max(floor(tracker.history[scale][0]), 1)
    scaled = ceil(beta * max(floor(tracker.history[name][-1]), 1) - 1e-9)
    return min(clamp_rank(scaled, tracker.full[bound], rank_floor), tracker.full[name])
