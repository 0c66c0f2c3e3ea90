"""Timed units (a layer or sub-block, at full rank and at each rank ratio), and repetitions of a profile."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from time import perf_counter
from typing import Any

from torch import nn

from cuttlefish.lowrank.profiling.timing import Conditions, units
from cuttlefish.lowrank.rank import clamp_rank, full_rank
from cuttlefish.lowrank.surgery import factorize
from cuttlefish.lowrank.trace import TracedLayer

Rows = list[dict[str, Any]]


def at_each_ratio(layer: TracedLayer, conditions: Conditions, ratios: Sequence[float]) -> list[nn.Module]:
    """Return the layer with its batch norm and activation: dense, then low-rank at each ratio."""
    pairs = [units(layer, replace(conditions, ratio=ratio)) for ratio in ratios]
    return [pairs[0][0], *(low for _, low in pairs)]


def sub_block_at_ratios(block: nn.Module, each: Sequence[Mapping[str, float]]) -> list[nn.Module]:
    """Return the sub-block unchanged, then with linear layers at given ratios, even without savings."""
    units = [deepcopy(block)]
    for ratios in each:
        full = {name: full_rank(block.get_submodule(name).weight) for name in ratios}
        ranks = {name: clamp_rank(round(ratio * full[name]), full[name]) for name, ratio in ratios.items()}
        units.append(factorize(deepcopy(block), ranks, keep_dense=False))
    return units


def repeat(
    rows: Rows,
    measures: Sequence[Callable[[], Iterable[float]]],
    repeats: int,
    conclude: Callable[[], dict[str, Any]] = dict,
) -> Rows:
    """Measure every row `repeats` times, one whole profile after the other.

    Args:
        rows: Receive `full_s`, seconds at full rank per repetition, and `low_s`, one such list per ratio.
        measures: For each row a function that returns its seconds at full rank and at each ratio.
        conclude: Derives results of a repetition from the rows that now include it.

    Returns:
        For each repetition its own seconds and the result of `conclude`.
    """
    repetitions = []
    for _ in range(repeats):
        began = perf_counter()
        for row, measure in zip(rows, measures, strict=True):
            full, *low = measure()
            row.setdefault("full_s", []).append(full)
            for times, seconds in zip(row.setdefault("low_s", [[] for _ in low]), low, strict=True):
                times.append(seconds)
        repetitions.append(conclude() | {"seconds": perf_counter() - began})
    return repetitions
