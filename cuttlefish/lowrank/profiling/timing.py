"""How long one layer takes at full rank and at a ratio of it: by the clock, or by a roofline model."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import prod
from statistics import mean, median
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cuttlefish.lowrank.layers import LowRankConv2d, LowRankLinear
from cuttlefish.lowrank.layout import keep_plain
from cuttlefish.lowrank.rank import clamp_rank, full_rank
from cuttlefish.lowrank.trace import TracedLayer

BALANCE = 70.0
"""FLOPs an accelerator does in the time it moves one byte: the cost model's only constant."""

Timing = tuple[float, float, float | None, float | None, float, float]
"""Forward full and low, backward full and low (medians), forward full and low (means)."""


@dataclass(frozen=True)
class Conditions:
    """What a profile holds fixed: the batch (its size, device and layout), α, ζ, and what is timed."""

    batch: Tensor
    ratio: float
    repeats: int
    backward: bool
    extra_bn: bool
    autocast: Callable[[], AbstractContextManager[Any]]


def positions(layer: TracedLayer) -> int:
    """Return the output positions of one sample: pixels of a convolution, tokens of a linear layer."""
    shape = layer.output_shape
    return prod(shape[2:] if isinstance(layer.module, nn.Conv2d) else shape[1:-1])


def kernel_area(module: nn.Module) -> int:
    """Return kh·kw of a convolution, 1 of a linear layer."""
    return module.kernel_size[0] * module.kernel_size[1] if isinstance(module, nn.Conv2d) else 1


def measure(layer: TracedLayer, conditions: Conditions) -> Timing:
    """Return the seconds of one layer at full rank and at the conditions' ratio."""
    full, low = take_turns(units(layer, conditions), layer.input_shape, conditions)
    back = [median(passes.backward) if conditions.backward else None for passes in (full, low)]
    return median(full.forward), median(low.forward), back[0], back[1], mean(full.forward), mean(low.forward)


class Passes(NamedTuple):
    """Seconds of each pass of one unit, the first dropped; zeros backward where that was not asked for."""

    forward: tuple[float, ...]
    backward: tuple[float, ...]


def take_turns(
    modules: Iterable[nn.Module], input_shape: Sequence[int], conditions: Conditions
) -> list[Passes]:
    """Time ζ runs of every module on random input, in turns, so that a machine that slows down slows all.

    input_shape: that of any batch; the size, device and layout of the conditions' batch are used.
    """
    batch = conditions.batch
    modules = [module.to(batch.device) for module in modules]
    x = torch.randn(len(batch), *input_shape[1:], device=batch.device)
    if x.ndim == 4:
        channels_last = batch.is_contiguous(memory_format=torch.channels_last)
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        modules = [keep_plain(module.to(memory_format=memory_format)) for module in modules]
        x = x.contiguous(memory_format=memory_format)
    runs = [[_time(module, x, conditions) for module in modules] for _ in range(conditions.repeats)][1:]
    return [Passes(*zip(*passes, strict=True)) for passes in zip(*runs, strict=True)]


def units(layer: TracedLayer, conditions: Conditions) -> tuple[nn.Module, nn.Module]:
    """Return the layer at full rank and at the ratio, a convolution with its batch norm and activation."""
    module, rank = layer.module, _rank(layer, conditions)
    with torch.device(conditions.batch.device):
        if not isinstance(module, nn.Conv2d):
            plain = (module.in_features, module.out_features)
            return nn.Linear(*plain), LowRankLinear(*plain, rank)
        shape: tuple[Any, Any, Any] = (module.in_channels, module.out_channels, module.kernel_size)
        options: dict[str, Any] = {"stride": module.stride, "padding": module.padding, "bias": False}
        options |= {"dilation": module.dilation}
        low = LowRankConv2d(*shape, rank, extra_bn=conditions.extra_bn, **options)
        return _unit(nn.Conv2d(*shape, **options), layer), _unit(low, layer)


def _unit(conv: nn.Module, layer: TracedLayer) -> nn.Module:
    norm = [nn.BatchNorm2d(layer.module.weight.shape[0])] if layer.normalised else []
    return nn.Sequential(conv, *norm, nn.ReLU(inplace=True))


def _rank(layer: TracedLayer, conditions: Conditions) -> int:
    full = full_rank(layer.module.weight)
    return clamp_rank(round(conditions.ratio * full), full)


def _time(unit: nn.Module, x: Tensor, conditions: Conditions) -> tuple[float, float]:
    """Return the seconds of one forward and one backward pass (0 where not asked for)."""
    x = x.detach().requires_grad_(conditions.backward)
    start = _now(x)
    with conditions.autocast(), torch.set_grad_enabled(conditions.backward):
        output = unit(x)
    middle = _now(x)
    if conditions.backward:
        output.backward(torch.ones_like(output))
    return middle - start, _now(x) - middle


def _now(tensor: Tensor) -> float:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
    return perf_counter()


def estimate(layer: TracedLayer, conditions: Conditions) -> Timing:
    """Return a roofline time in FLOPs: the larger of arithmetic and float32 traffic × BALANCE."""
    module, places = layer.module, positions(layer) * len(conditions.batch)
    out, area = module.weight.shape[0], kernel_area(module)
    inputs = module.weight[0].numel() // area
    rank = _rank(layer, conditions)

    def product(rows: int, columns: int, taps: int) -> float:
        moved = 4 * ((rows + columns) * places + rows * columns * taps)
        return max(2.0 * rows * columns * taps * places, BALANCE * moved)

    # A batch norm and its activation read or write their map five times forward.
    rest = BALANCE * 4 * 5 * out * places if layer.normalised else 0.0
    full = product(inputs, out, area) + rest
    low = product(inputs, rank, area) + product(rank, out, 1) + rest
    return full, low, None, None, full, low
