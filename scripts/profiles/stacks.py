"""Stacks at full rank and at each ratio (paper, figure 4), and the K that each repetition would choose (section 3.5)."""

from collections.abc import Sequence
from statistics import median
from time import perf_counter
from typing import Any

from torch import nn

from cuttlefish.lowrank.profiling import Stack, candidates, decide, group_stacks, main_path
from cuttlefish.lowrank.timing import Conditions, take_turns
from cuttlefish.lowrank.trace import TracedLayer
from scripts.profiles.units import at_each_ratio

DECIDING_RATIO, THRESHOLD = 0.25, 1.5
"""α and τ."""


def profile_of_stacks(
    model: nn.Module, given_as: Conditions, ratios: Sequence[float], repeats: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows, one a stack: `full_s` (one a repetition) and `low_s` (one list a ratio). Repetitions: K by α and τ, and its seconds."""
    path = main_path(model, given_as.batch)
    possible = set(candidates(model, path))
    groups = group_stacks([layer for layer in path if layer.name in possible])
    rows = [
        {"stack": name, "layers": [layer.name for layer in own], "full_s": [], "low_s": [[] for _ in ratios]}
        for name, own in groups.items()
    ]
    decisions = []
    for _ in range(repeats):
        began = perf_counter()
        for row, layers in zip(rows, groups.values(), strict=True):
            full, *low = _seconds(layers, given_as, ratios)
            row["full_s"].append(full)
            for times, seconds in zip(row["low_s"], low, strict=True):
                times.append(seconds)
        decisions.append(_decision(rows, path, ratios) | {"seconds": perf_counter() - began})
    return rows, decisions


def _seconds(layers: list[TracedLayer], given_as: Conditions, ratios: Sequence[float]) -> list[float]:
    """Forward seconds of the whole stack, at full rank and at each ratio: sums over its layers of medians over the runs."""
    passes = [
        take_turns(at_each_ratio(layer, given_as, ratios), layer.input_shape, given_as) for layer in layers
    ]
    return [sum(median(unit.forward) for unit in units) for units in zip(*passes, strict=True)]


def _decision(rows: list[dict[str, Any]], path: list[TracedLayer], ratios: Sequence[float]) -> dict[str, Any]:
    if DECIDING_RATIO not in ratios:
        return {"k": None, "first_factorized": None}
    place = list(ratios).index(DECIDING_RATIO)
    times = [(row["full_s"][-1], row["low_s"][place][-1]) for row in rows]
    stacks = [
        Stack(row["stack"], row["layers"], *pair, None, None, *pair, 0.0)
        for row, pair in zip(rows, times, strict=True)
    ]
    k, _ = decide(path, stacks, THRESHOLD)
    return {"k": k, "first_factorized": k + 1}
