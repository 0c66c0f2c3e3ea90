"""Single layers at full rank and at each ratio, and a transformer's attention and MLP sub-blocks as a whole (paper, figure 6)."""

from collections.abc import Iterator, Sequence
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

from torch import nn

from cuttlefish.lowrank.profiling import block_name, main_path
from cuttlefish.lowrank.timing import Conditions, take_turns
from cuttlefish.lowrank.trace import TracedLayer
from scripts.profiles.units import at_each_ratio, sub_block_at_each_ratio


class Part(NamedTuple):
    """What is timed as one: a layer (with its norm and activation) or a sub-block, here with its first layer."""

    name: str
    kind: str
    first: TracedLayer
    layers: list[str]
    whole: nn.Module | None


def profile_layers(
    model: nn.Module, given_as: Conditions, ratios: Sequence[float], repeats: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows, one a part in order of execution: `full_s` (one a repetition, the median of its runs) and `low_s` (one list a ratio)."""
    parts = list(parts_of(model, main_path(model, given_as.batch)))
    rows = [
        {
            "layer": part.name,
            "kind": part.kind,
            "layers": part.layers,
            "full_s": [],
            "low_s": [[] for _ in ratios],
        }
        for part in parts
    ]
    repetitions = []
    for _ in range(repeats):
        began = perf_counter()
        for row, part in zip(rows, parts, strict=True):
            full, *low = (
                median(unit.forward)
                for unit in take_turns(_units(part, given_as, ratios), part.first.input_shape, given_as)
            )
            row["full_s"].append(full)
            for times, seconds in zip(row["low_s"], low, strict=True):
                times.append(seconds)
        repetitions.append({"seconds": perf_counter() - began})
    return rows, repetitions


def parts_of(model: nn.Module, path: list[TracedLayer]) -> Iterator[Part]:
    """Linear layers of a numbered block by the sub-block they are in (kind: its last name, attn or mlp); others one by one."""
    seen = set()
    for layer in path:
        parent = layer.name.rpartition(".")[0]
        if isinstance(layer.module, nn.Conv2d):
            yield Part(layer.name, "conv", layer, [layer.name], None)
        elif parent in ("", block_name(layer.name)):
            yield Part(layer.name, "fc", layer, [layer.name], None)
        elif parent not in seen:
            seen.add(parent)
            inside = [other.name for other in path if other.name.rpartition(".")[0] == parent]
            yield Part(parent, parent.rpartition(".")[2], layer, inside, model.get_submodule(parent))


def _units(part: Part, given_as: Conditions, ratios: Sequence[float]) -> list[nn.Module]:
    if part.whole is None:
        return at_each_ratio(part.first, given_as, ratios)
    return sub_block_at_each_ratio(part.whole, [name.rpartition(".")[2] for name in part.layers], ratios)
