"""The mathematics of early-bird tickets: channel masks, the distance between them, when they have settled, the L1 on γ."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise

import torch
from torch import Tensor

DISTANCES = ("newest_vs_queue", "consecutive")
THRESHOLDS = ("exact", "original")


def channel_masks(scales: Tensor, layers: Sequence[int], p: float, threshold: str = "exact") -> Tensor:
    """Bool vector over all channels, False for the smallest |γ| of the whole network, a fraction p of them.

    scales: γ of all layers in a row; layers: channels of each. exact: floor(p·n) go, of equal ones the first. original: all
    that are not strictly above y[int(p·n)] go (y ascending), which is one more, and what ties with it.
    """
    if threshold == "original":
        scales = scales.detach().abs()
        bound = scales.sort().values[min(int(p * len(scales)), len(scales) - 1)]
        return _spare_one(scales > bound, scales, layers)
    return drop_smallest(scales, layers, int(Fraction(str(p)) * len(scales)))


def drop_smallest(scales: Tensor, layers: Sequence[int], dropped: int) -> Tensor:
    """The mask without the `dropped` smallest |γ|."""
    scales = scales.detach().abs()
    keep = torch.ones(len(scales), dtype=torch.bool, device=scales.device)
    keep[scales.argsort(stable=True)[:dropped]] = False
    return _spare_one(keep, scales, layers)


def _spare_one(keep: Tensor, scales: Tensor, layers: Sequence[int]) -> Tensor:
    """A layer that would lose every channel keeps its largest (of equal ones the first)."""
    start = 0
    for size in layers:
        keep[start + int(scales[start : start + size].argmax())] |= not keep[start : start + size].any()
        start += size
    return keep


def mask_distance(one: Tensor, other: Tensor) -> float:
    """Share of channels in which two masks differ, in [0, 1]."""
    return float((one != other).double().mean())


def has_settled(masks: Sequence[Tensor], fifo: int, eps: float, distance: str = "newest_vs_queue") -> bool:
    """Whether a ticket is drawn at the last of these masks, given in order.

    newest_vs_queue (the reference's code): of the last `fifo` masks the newest is within eps of each older one.
    consecutive (the paper): the last `fifo` distances between neighbours are all below eps, which takes fifo + 1 masks.
    """
    if distance == "consecutive":
        last = list(masks)[-(fifo + 1) :]
        return len(last) == fifo + 1 and all(mask_distance(one, other) < eps for one, other in pairwise(last))
    last = list(masks)[-fifo:]
    return len(last) == fifo and all(mask_distance(last[-1], mask) <= eps for mask in last[:-1])


def nearest_drop(size: Callable[[int], int], channels: int, target: int) -> int:
    """The number of dropped channels whose size is nearest to `target`, by bisection: `size` never grows with it."""
    low, high = 0, channels
    while low < high:
        middle = (low + high) // 2
        if size(middle) <= target:
            high = middle
        else:
            low = middle + 1
    return low if low == 0 or abs(size(low) - target) <= abs(size(low - 1) - target) else low - 1


@torch.no_grad()
def add_l1(scales: Sequence[Tensor], strength: float) -> None:
    """Add the gradient of strength · ‖γ‖₁ to the gradients: strength · sign(γ), 0 at 0. Two fused calls, no host sync."""
    present = [scale for scale in scales if scale.grad is not None]
    if present and strength:
        torch._foreach_add_([scale.grad for scale in present], torch._foreach_sign(present), alpha=strength)
