"""Mathematics of early-bird tickets: channel masks, mask stability, the L1 on γ, and removing channels."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from fractions import Fraction
from itertools import pairwise

import torch
from torch import Tensor, nn

from baselines.eb_channels import Chain
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.trace import evaluating

DISTANCES = ("newest_vs_queue", "consecutive")
THRESHOLDS = ("exact", "original")


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


def gammas(model: nn.Module, chains: Sequence[Chain]) -> list[nn.Parameter]:
    """Return the scales γ of the chains' norms."""
    return [model.get_submodule(chain.norm).weight for chain in chains]


def slim_size(model: nn.Module, chains: Sequence[Chain], kept: Sequence[int]) -> int:
    """Return the model's parameter count if chain i kept `kept[i]` channels, without building it."""
    counts = list(zip(chains, kept, strict=True))
    rows = {chain.conv: count for chain, count in counts}
    columns = {
        name: span * count
        for chain, count in counts
        for name, span in zip(chain.readers, chain.spans, strict=True)
    }
    total = sum(parameter.numel() for parameter in model.parameters())
    for name in rows.keys() | columns.keys():
        layer = model.get_submodule(name)
        outputs, inputs = layer.weight.shape[:2]
        area = layer.weight[0, 0].numel()
        total -= area * (outputs * inputs - rows.get(name, outputs) * columns.get(name, inputs))
        if layer.bias is not None:
            total -= outputs - rows.get(name, outputs)
    return total - sum(2 * (chain.channels - count) for chain, count in counts)


@torch.no_grad()
def mask_channels(model: nn.Module, chains: Sequence[Chain], masks: Sequence[Tensor]) -> nn.Module:
    """Silence the channels that are not kept, in place: γ = β = 0 (with β left one would emit relu(β))."""
    for chain, mask in zip(chains, masks, strict=True):
        norm = model.get_submodule(chain.norm)
        norm.weight.mul_(mask.to(norm.weight))
        norm.bias.mul_(mask.to(norm.bias))
    return model


@torch.no_grad()
def slim(model: nn.Module, chains: Sequence[Chain], masks: Sequence[Tensor]) -> nn.Module:
    """Remove the channels that are not kept, in place; the model then computes what the masked one does.

    Parameters are replaced, so existing optimizers become stale.

    Args:
        masks: One bool vector per chain, True where kept.
    """
    for chain, mask in zip(chains, masks, strict=True):
        conv, norm = model.get_submodule(chain.conv), model.get_submodule(chain.norm)
        kept = mask.nonzero().squeeze(1).to(conv.weight.device)
        _cut(conv, {"weight": 0, "bias": 0}, kept)
        conv.out_channels = len(kept)
        _cut(norm, {"weight": 0, "bias": 0, "running_mean": 0, "running_var": 0}, kept)
        norm.num_features = len(kept)
        for name, span in zip(chain.readers, chain.spans, strict=True):
            reader = model.get_submodule(name)
            columns = (kept[:, None] * span + torch.arange(span, device=kept.device)).reshape(-1)
            _cut(reader, {"weight": 1}, columns)
            setattr(reader, "in_channels" if isinstance(reader, nn.Conv2d) else "in_features", len(columns))
    return model


def reinitialise(model: nn.Module, device: torch.device) -> None:
    """Reinitialise every layer from a seed derived from the run's; the global random state is preserved."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed((torch.initial_seed() + 1) % 2**63)
        for module in model.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()


@torch.no_grad()
def prove_slimming(model: nn.Module, chains: Sequence[Chain], example: Tensor) -> None:
    """Remove every second channel of a copy and compare with the masked model.

    Raises:
        CuttlefishError: The outputs differ or the model fails.
    """
    masks = [torch.arange(chain.channels) % 2 == 0 for chain in chains]
    masked, small = mask_channels(deepcopy(model), chains, masks), slim(deepcopy(model), chains, masks)
    try:
        with evaluating(masked), evaluating(small):
            expected, found = masked(example[:2]), small(example[:2])
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise CuttlefishError(
            f"eb cannot make this model smaller, because its forward fails with fewer channels: {reason}"
        ) from error
    if not torch.allclose(found, expected, rtol=0, atol=1e-2 * float(expected.abs().max())):
        raise CuttlefishError(
            "eb cannot make this model smaller: without the masked channels it computes something else"
        )


def _cut(module: nn.Module, axes: Mapping[str, int], kept: Tensor) -> None:
    for name, axis in axes.items():
        old = getattr(module, name)
        if old is None:
            continue
        new = old.detach().index_select(axis, kept)
        setattr(
            module,
            name,
            nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new,
        )
