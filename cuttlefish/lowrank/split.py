"""Split a dense layer into a low-rank one by truncated SVD (spectral initialisation), and merge it back."""

from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.layers import LowRankConv2d, LowRankLayer, LowRankLinear
from cuttlefish.lowrank.layout import keep_plain
from cuttlefish.lowrank.matrix import fold, truncated_svd, unroll

__all__ = ["merge_layer", "split_layer"]


Layer = TypeVar("Layer", bound=nn.Module)


@torch.no_grad()
def split_layer(
    module: nn.Conv2d | nn.Linear,
    rank: int,
    *,
    extra_bn: bool = False,
    first_bias: bool = False,
    scheme: str = "channel",
    initialise: bool = True,
    exact: bool = False,
    factors: tuple[Tensor, Tensor] | None = None,
) -> LowRankConv2d | LowRankLinear:
    """Return a new low-rank layer that computes what the dense one does, as nearly as its rank allows.

    It has the dense one's dtype, device, memory format, requires_grad, training flag and a copy of its bias.
    No random numbers are drawn.

    Args:
        module: An nn.Conv2d without groups or an nn.Linear.
        rank: From 1 to the full rank of the unrolled weight.
        extra_bn: Put a batch norm between the factors of a convolution: weight 1, bias 0, mean 0, variance 1.
        first_bias: Give the first factor of a Linear a bias of its own, zero at first.
        scheme: `channel` or `spatial`, see `LowRankConv2d`.
        initialise: False skips the SVD and leaves both factors zero, a structure to load a state dict into.
        exact: Split by the full SVD, see `truncated_svd`.
        factors: What `truncated_svd` would return, if it is there already.
    """
    if not isinstance(module, nn.Conv2d | nn.Linear) or getattr(module, "groups", 1) != 1:
        raise CuttlefishError(f"Only nn.Conv2d without groups and nn.Linear can be split, not {module!r}.")
    layer = _structure(module, rank, extra_bn, first_bias, scheme)
    if initialise:
        factors = factors or truncated_svd(unroll(module.weight, layer.scheme), rank, exact=exact)
        second, first = layer.shaped(*factors)
        layer.second.weight.copy_(second)
        layer.first.weight.copy_(first)
    for parameter in layer.parameters():
        parameter.requires_grad_(module.weight.requires_grad)
    if module.bias is not None and layer.second.bias is not None:
        layer.second.bias.copy_(module.bias).requires_grad_(module.bias.requires_grad)
    return layer.train(module.training)


@torch.no_grad()
def merge_layer(layer: LowRankLayer) -> nn.Conv2d | nn.Linear:
    """Return a new dense layer that computes what the low-rank one does.

    An extra BN is folded in with its running statistics (exact in eval mode), which gives the layer a bias.
    """
    U, Vt = (factor.detach().cpu().double() for factor in layer.factors())
    bias = None if layer.second.bias is None else layer.second.bias.cpu().double()
    if layer.bn is not None:
        scale, shift = _affine(layer.bn)
        bias = U @ shift + (0.0 if bias is None else bias)
        U = U * scale
    elif layer.first.bias is not None:
        bias = U @ layer.first.bias.cpu().double() + (0.0 if bias is None else bias)
    dense = _dense(layer, bias is not None)
    dense.weight.copy_(fold(U @ Vt, layer.weight_shape, layer.scheme))
    dense.weight.requires_grad_(layer.first.weight.requires_grad or layer.second.weight.requires_grad)
    if bias is not None and dense.bias is not None:
        owner = layer.second.weight if layer.second.bias is None else layer.second.bias
        dense.bias.copy_(bias).requires_grad_(owner.requires_grad)
    return dense.train(layer.training)


def _structure(
    module: nn.Conv2d | nn.Linear, rank: int, extra_bn: bool, first_bias: bool, scheme: str
) -> LowRankConv2d | LowRankLinear:
    """Return a layer of zeros where the dense weight lies; built without memory and random numbers."""
    options: dict[str, Any] = {"bias": module.bias is not None}
    options |= {"device": "meta", "dtype": module.weight.dtype}
    if isinstance(module, nn.Linear):
        options |= {"first_bias": first_bias}
        layer = LowRankLinear(module.in_features, module.out_features, rank, **options)
    else:
        options |= {"scheme": scheme, "extra_bn": extra_bn, **_geometry(module)}
        kernel = (module.kernel_size[0], module.kernel_size[1])
        layer = LowRankConv2d(module.in_channels, module.out_channels, kernel, rank, **options)
    _allocate(layer, module.weight)
    for parameter in layer.parameters():
        parameter.zero_()
    if layer.bn is not None:
        layer.bn.reset_parameters()
    return layer


def _dense(layer: LowRankLayer, bias: bool) -> nn.Conv2d | nn.Linear:
    weight = layer.first.weight
    options: dict[str, Any] = {"bias": bias, "device": "meta", "dtype": weight.dtype}
    if isinstance(layer, LowRankLinear):
        dense = nn.Linear(layer.in_features, layer.out_features, **options)
    else:
        assert isinstance(layer, LowRankConv2d)
        dense = nn.Conv2d(
            layer.in_channels, layer.out_channels, layer.kernel_size, **_geometry(layer), **options
        )
    return _allocate(dense, weight)


def _geometry(module: nn.Conv2d | LowRankConv2d) -> dict:
    return {name: getattr(module, name) for name in ("stride", "padding", "dilation", "padding_mode")}


def _allocate(module: Layer, like: Tensor) -> Layer:
    """Give a module memory on the device and in the memory format of the weight `like`."""
    if _is_channels_last(like):
        module.to(memory_format=torch.channels_last)
    keep_plain(module.to_empty(device=like.device))
    return module


def _is_channels_last(weight: Tensor) -> bool:
    """Return whether a 4-D weight has channels_last's strides; a 1×1 kernel is contiguous in both."""
    if weight.ndim != 4:
        return False
    plain = torch.empty(weight.shape, device="meta")
    return weight.stride() == plain.to(memory_format=torch.channels_last).stride() != plain.stride()


def _affine(bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return the scale and shift of each channel in eval mode, float64."""
    weight, bias, mean, var = (
        cast(Tensor, tensor).detach().cpu().double()
        for tensor in (bn.weight, bn.bias, bn.running_mean, bn.running_var)
    )
    scale = weight / (var + bn.eps).sqrt()
    return scale, bias - mean * scale
