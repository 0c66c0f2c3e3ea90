"""Find the batch-norm channels that a model can lose, and remove them.

A chain is conv → BN → … → the convs or linear layers that read it. Masking one of its channels (γ = β = 0)
must equal removing it from the conv's rows, the BN's vectors and the readers' columns. Which layers read a
channel is seen by following a NaN through the model, and whether they need it by removing half of the
channels: a residual sum, for example, needs all of its summands'.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import nan

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from baselines.conv_norms import convolutions
from cuttlefish.lowrank.find import find_layers
from cuttlefish.lowrank.trace import evaluating


@dataclass(frozen=True)
class Chain:
    """A conv, its BN and the layers that read it, by dotted names.

    Attributes:
        spans: Columns that each reader has per channel (1 for a conv).
    """

    conv: str
    norm: str
    readers: tuple[str, ...]
    spans: tuple[int, ...]
    channels: int


@torch.no_grad()
def find_chains(model: nn.Module, example: Tensor) -> list[Chain]:
    """Return the chains in execution order. Runs a copy of the model a few times, on two samples."""
    model, example = deepcopy(model), example[:2]
    _shake(model)
    layers, found = find_layers(model).layers, []
    with evaluating(model):
        for conv, norm in convolutions(model, example).items():
            if conv in layers and norm is not None and _is_norm(model.get_submodule(norm)):
                chain = _follow(model, example, conv, norm, layers)
                if chain is not None and _is_removable(model, chain, example):
                    found.append(chain)
    return found


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d) and module.affine and module.num_features > 1


def _shake(model: nn.Module) -> None:
    """Draw γ and β anew: an initial γ of 0 would hide what the layers behind it do."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if _is_norm(module):
            size = module.num_features
            module.weight.copy_(0.5 + torch.rand(size, generator=generator))
            module.bias.copy_(torch.randn(size, generator=generator))


def _follow(
    model: nn.Module, example: Tensor, conv: str, norm: str, layers: Mapping[str, nn.Module]
) -> Chain | None:
    """Return the chain of the layers that a NaN in the first channel reaches; None if it spreads sooner."""
    calls: Counter[str] = Counter()
    reached: dict[str, Tensor] = {}
    handles = []

    def watch(name: str, module: nn.Module) -> None:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            calls[name] += 1
            is_nan = inputs[0].isnan()
            if is_nan.any() and not is_nan.all():
                reached[name] = is_nan

        handles.append(module.register_forward_hook(hook))

    bn = model.get_submodule(norm)
    for name, module in (*layers.items(), (norm, bn)):
        watch(name, module)
    scale = float(bn.weight[0])
    bn.weight[0] = nan
    try:
        model(example)
    finally:
        bn.weight[0] = scale
        for handle in handles:
            handle.remove()
    spans = [_span(model.get_submodule(name), is_nan, bn.num_features) for name, is_nan in reached.items()]
    if not spans or None in spans or any(calls[name] != 1 for name in (conv, norm, *reached)):
        return None
    return Chain(conv, norm, tuple(reached), tuple(spans), bn.num_features)


def _span(reader: nn.Module, is_nan: Tensor, channels: int) -> int | None:
    """Return how many columns the reader has per channel; None if the first channel is not the first ones."""
    width = is_nan.shape[1]
    fits = width == channels if isinstance(reader, nn.Conv2d) else is_nan.ndim == 2 and width % channels == 0
    columns = is_nan.transpose(0, 1).flatten(1)
    span = width // channels
    return span if fits and columns[:span].any(1).all() and not columns[span:].any() else None


def _is_removable(model: nn.Module, chain: Chain, example: Tensor) -> bool:
    """Return whether the model without every second channel computes what the masked one does."""
    masks = [torch.arange(chain.channels) % 2 == 0]
    exact, example = deepcopy(model).double(), example.double()
    masked, small = mask_channels(deepcopy(exact), [chain], masks), slim(exact, [chain], masks)
    try:
        pairs = list(zip(tree_leaves(masked(example)), tree_leaves(small(example)), strict=True))
    except RuntimeError:  # of shapes that do not fit
        return False
    return all(one.shape == other.shape and torch.allclose(one, other, 1e-6, 1e-9) for one, other in pairs)


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


def _cut(module: nn.Module, axes: Mapping[str, int], kept: Tensor) -> None:
    for name, axis in axes.items():
        old = getattr(module, name)
        if old is None:
            continue
        new = old.detach().index_select(axis, kept)
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        setattr(module, name, new)
