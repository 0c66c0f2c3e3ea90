"""What is timed: a layer or a sub-block at full rank, then at each rank ratio."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

from torch import nn

from cuttlefish.lowrank.rank import clamp_rank, full_rank
from cuttlefish.lowrank.surgery import factorize
from cuttlefish.lowrank.timing import Conditions, units
from cuttlefish.lowrank.trace import TracedLayer


def at_each_ratio(layer: TracedLayer, given_as: Conditions, ratios: Sequence[float]) -> list[nn.Module]:
    """The layer with its batch norm and activation: dense, then low-rank."""
    pairs = [units(layer, replace(given_as, ratio=ratio)) for ratio in ratios]
    return [pairs[0][0], *(low for _, low in pairs)]


def sub_block_at_each_ratio(
    block: nn.Module, layers: Sequence[str], ratios: Sequence[float]
) -> list[nn.Module]:
    """The sub-block as it is, then with all its linear layers at each ratio, even where that saves nothing."""
    full = {name: full_rank(block.get_submodule(name).weight) for name in layers}
    low = [
        factorize(
            deepcopy(block),
            {name: clamp_rank(round(ratio * rank), rank) for name, rank in full.items()},
            keep_dense=False,
        )
        for ratio in ratios
    ]
    return [deepcopy(block), *low]
