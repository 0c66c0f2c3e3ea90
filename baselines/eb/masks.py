"""Mathematics of early-bird tickets: channel masks, mask stability, and the L1 on γ."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise

import torch
from torch import Tensor, nn


def channel_masks(scales: Tensor, layers: Sequence[int], p: float, threshold: str = "exact") -> Tensor:
    """Return a bool vector over all channels, False for the smallest |γ| of the whole network, a fraction p.

    Args:
        scales: γ of all layers, concatenated.
        layers: Number of channels of each layer.
        threshold: exact drops floor(p·n), the first of ties. original drops all that are not strictly above
            y[int(p·n)] (y ascending): one more, and its ties.
    """
    if threshold == "original":
        scales = scales.detach().abs()
        bound = scales.sort().values[min(int(p * len(scales)), len(scales) - 1)]
        return _spare_one(scales > bound, scales, layers)
    return drop_smallest(scales, layers, int(Fraction(str(p)) * len(scales)))


def drop_smallest(scales: Tensor, layers: Sequence[int], dropped: int) -> Tensor:
    """Return the mask without the `dropped` smallest |γ|."""
    scales = scales.detach().abs()
    keep = torch.ones(len(scales), dtype=torch.bool, device=scales.device)
    keep[scales.argsort(stable=True)[:dropped]] = False
    return _spare_one(keep, scales, layers)


def _spare_one(keep: Tensor, scales: Tensor, layers: Sequence[int]) -> Tensor:
    """Keep the largest channel (the first of ties) of a layer that would lose every channel."""
    start = 0
    for size in layers:
        keep[start + int(scales[start : start + size].argmax())] |= not keep[start : start + size].any()
        start += size
    return keep


def mask_distance(one: Tensor, other: Tensor) -> float:
    """Return the share of channels in which two masks differ, in [0, 1]."""
    return float((one != other).double().mean())


def has_settled(masks: Sequence[Tensor], fifo: int, eps: float, distance: str = "newest_vs_queue") -> bool:
    """Return whether a ticket is drawn at the last of these masks, given in order.

    Args:
        distance: newest_vs_queue (the reference's code): the newest of the last `fifo` masks is within eps of
            each older one. consecutive (the paper): the last `fifo` distances between neighbours are all
            below eps, which takes fifo + 1 masks.
    """
    if distance == "consecutive":
        last = list(masks)[-(fifo + 1) :]
        return len(last) == fifo + 1 and all(mask_distance(one, other) < eps for one, other in pairwise(last))
    last = list(masks)[-fifo:]
    return len(last) == fifo and all(mask_distance(last[-1], mask) <= eps for mask in last[:-1])


def nearest_drop(size: Callable[[int], int], channels: int, target: int) -> int:
    """Return the number of dropped channels whose `size` (decreasing in it) is nearest to `target`."""
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
    """Add the gradient of strength · ‖γ‖₁, strength · sign(γ): two fused calls, no host sync."""
    present = [scale for scale in scales if scale.grad is not None]
    if present and strength:
        torch._foreach_add_([scale.grad for scale in present], torch._foreach_sign(present), alpha=strength)


def reinitialise(model: nn.Module, device: torch.device) -> None:
    """Reinitialise every layer from a seed derived from the run's; the global random state is preserved."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed((torch.initial_seed() + 1) % 2**63)
        for module in model.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
