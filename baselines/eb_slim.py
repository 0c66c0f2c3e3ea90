"""Removing channels: how large the rest is, which masked network it equals, and the surgery itself."""

from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from baselines.eb_channels import Chain
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.trace import evaluating


def gammas(model: nn.Module, chains: Sequence[Chain]) -> list[nn.Parameter]:
    """The scales γ of the chains' norms."""
    return [model.get_submodule(chain.norm).weight for chain in chains]


def slim_size(model: nn.Module, chains: Sequence[Chain], kept: Sequence[int]) -> int:
    """All parameters of `model`, whole, if chain i kept `kept[i]` channels; computed, nothing is built."""
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
    """Silence the channels that are not kept, γ = β = 0, in place. Both: with β left, a channel would still emit relu(β)."""
    for chain, mask in zip(chains, masks, strict=True):
        norm = model.get_submodule(chain.norm)
        norm.weight.mul_(mask.to(norm.weight))
        norm.bias.mul_(mask.to(norm.bias))
    return model


@torch.no_grad()
def slim(model: nn.Module, chains: Sequence[Chain], masks: Sequence[Tensor]) -> nn.Module:
    """Remove the channels that are not kept, in place; the model then computes what `mask_channels` would make it compute.

    masks: one bool vector a chain, True where kept. Parameters are new ones: an optimizer made before is stale.
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
    """Every layer's own fresh initialisation, from a seed that follows from the run's; the global random state stays."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed((torch.initial_seed() + 1) % 2**63)
        for module in model.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()


@torch.no_grad()
def prove_slimming(model: nn.Module, chains: Sequence[Chain], example: Tensor) -> None:
    """Remove every second channel of a copy and compare with the masked model. Raises CuttlefishError if `model` does not survive that."""
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
