"""How long one layer takes at full rank and at a ratio of it: by the clock, or by a roofline model."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
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
    """Output positions of one sample: pixels of a convolution, tokens of a linear layer."""
    shape = layer.output_shape
    spatial = shape[2:] if isinstance(layer.module, nn.Conv2d) else shape[1:-1]
    positions = 1
    for side in spatial:
        positions *= side
    return positions


def kernel_area(module: nn.Module) -> int:
    return module.kernel_size[0] * module.kernel_size[1] if isinstance(module, nn.Conv2d) else 1


def measure(layer: TracedLayer, given_as: Conditions) -> Timing:
    """Seconds of the layer at full rank and at the conditions' ratio."""
    full, low = take_turns(units(layer, given_as), layer.input_shape, given_as)
    back = (median(full.backward), median(low.backward)) if given_as.backward else (None, None)
    return median(full.forward), median(low.forward), *back, mean(full.forward), mean(low.forward)


class Passes(NamedTuple):
    """Seconds of each pass of one unit, the first dropped; zeros backward where that was not asked for."""

    forward: tuple[float, ...]
    backward: tuple[float, ...]


def take_turns(
    modules: Iterable[nn.Module], input_shape: Sequence[int], given_as: Conditions
) -> list[Passes]:
    """ζ runs of every module on random input, in turns, so that a machine that slows down slows all of them.

    input_shape: that of any batch; the size, device and layout of the conditions' batch are used.
    """
    batch = given_as.batch
    taking = [module.to(batch.device) for module in modules]
    given = torch.randn(len(batch), *input_shape[1:], device=batch.device)
    if given.ndim == 4:
        memory_format = (
            torch.channels_last
            if batch.is_contiguous(memory_format=torch.channels_last)
            else torch.contiguous_format
        )
        taking = [keep_plain(module.to(memory_format=memory_format)) for module in taking]
        given = given.contiguous(memory_format=memory_format)
    runs = [[_time(module, given, given_as) for module in taking] for _ in range(given_as.repeats)][1:]
    return [Passes(*zip(*passes, strict=True)) for passes in zip(*runs, strict=True)]


def units(layer: TracedLayer, given_as: Conditions) -> tuple[nn.Module, nn.Module]:
    """The layer at full rank and at the ratio, each with the batch norm and activation that follow a convolution."""
    module = layer.module
    rank = clamp_rank(round(given_as.ratio * full_rank(module.weight)), full_rank(module.weight))
    if not isinstance(module, nn.Conv2d):
        plain = (module.in_features, module.out_features)
        return nn.Linear(*plain), LowRankLinear(*plain, rank)
    shape = (module.in_channels, module.out_channels, module.kernel_size)
    options = {"stride": module.stride, "padding": module.padding, "dilation": module.dilation, "bias": False}

    def unit(conv: nn.Module) -> nn.Module:
        norm = [nn.BatchNorm2d(module.out_channels)] if layer.normalised else []
        return nn.Sequential(conv, *norm, nn.ReLU(inplace=True))

    return unit(nn.Conv2d(*shape, **options)), unit(
        LowRankConv2d(*shape, rank, extra_bn=given_as.extra_bn, **options)
    )


def _time(unit: nn.Module, given: Tensor, given_as: Conditions) -> tuple[float, float]:
    """Seconds of one forward and one backward pass (0 where not asked for)."""
    given = given.detach().requires_grad_(given_as.backward)
    start = _now(given)
    with given_as.autocast(), torch.set_grad_enabled(given_as.backward):
        output = unit(given)
    middle = _now(given)
    if given_as.backward:
        output.backward(torch.ones_like(output))
    return middle - start, _now(given) - middle


def _now(tensor: Tensor) -> float:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
    return perf_counter()


def estimate(layer: TracedLayer, given_as: Conditions) -> Timing:
    """Roofline time a layer in units of FLOPs: the larger of its arithmetic and its traffic × BALANCE (float32)."""
    module, places = layer.module, positions(layer) * len(given_as.batch)
    out, area = module.weight.shape[0], kernel_area(module)
    inputs = module.weight[0].numel() // area
    rank = clamp_rank(round(given_as.ratio * full_rank(module.weight)), full_rank(module.weight))

    def product(rows: int, columns: int, taps: int) -> float:
        moved = 4 * ((rows + columns) * places + rows * columns * taps)
        return max(2.0 * rows * columns * taps * places, BALANCE * moved)

    # A batch norm and its activation read or write their map five times forward.
    rest = BALANCE * 4 * 5 * out * places if layer.normalised else 0.0
    full = product(inputs, out, area) + rest
    low = product(inputs, rank, area) + product(rank, out, 1) + rest
    return full, low, None, None, full, low
