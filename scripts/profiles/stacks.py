"""Time stacks at full rank and at each ratio (figure 4), and derive K per repetition (section 3.5)."""

from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import Any

from torch import nn

from cuttlefish.lowrank.path import candidates, main_path
from cuttlefish.lowrank.profiling.stacks import Stack, decide, group_stacks
from cuttlefish.lowrank.profiling.timing import Conditions, take_turns
from cuttlefish.lowrank.trace import TracedLayer
from scripts.profiles.units import Rows, at_each_ratio, repeat

DECIDING_RATIO, THRESHOLD = 0.25, 1.5
"""α and τ."""


def profile_of_stacks(
    model: nn.Module, conditions: Conditions, ratios: Sequence[float], repeats: int
) -> tuple[Rows, Rows]:
    """Return one row per stack, and the repetitions (see `repeat`), each with the K that α and τ give."""
    path = main_path(model, conditions.batch)
    possible = set(candidates(model, path))
    stacks = group_stacks([layer for layer in path if layer.name in possible])
    rows: Rows = [
        {"stack": name, "layers": [layer.name for layer in layers]} for name, layers in stacks.items()
    ]
    measures = [partial(_seconds, layers, conditions, ratios) for layers in stacks.values()]
    return rows, repeat(rows, measures, repeats, lambda: _decision(rows, path, ratios))


def _seconds(layers: list[TracedLayer], conditions: Conditions, ratios: Sequence[float]) -> list[float]:
    """Return forward seconds of the stack at full rank and at each ratio: the sum of layer medians."""
    passes = [
        take_turns(at_each_ratio(layer, conditions, ratios), layer.input_shape, conditions)
        for layer in layers
    ]
    return [sum(median(unit.forward) for unit in units) for units in zip(*passes, strict=True)]


def _decision(rows: Rows, path: list[TracedLayer], ratios: Sequence[float]) -> dict[str, Any]:
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
