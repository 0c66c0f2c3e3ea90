"""Time single layers, and a transformer's attention and MLP sub-blocks, at each rank ratio (figure 6)."""

from collections.abc import Iterator, Sequence
from functools import partial
from statistics import median
from typing import NamedTuple

from torch import nn

from cuttlefish.lowrank.path import main_path
from cuttlefish.lowrank.profiling import block_name
from cuttlefish.lowrank.profiling.timing import Conditions, take_turns
from cuttlefish.lowrank.trace import TracedLayer
from scripts.profiles.units import Rows, at_each_ratio, repeat, sub_block_at_each_ratio


class LayerGroup(NamedTuple):
    """One timed unit: a layer with its norm and activation, or a sub-block, named by its first layer."""

    name: str
    kind: str
    first: TracedLayer
    layers: list[str]
    whole: nn.Module | None


def profile_layers(
    model: nn.Module, conditions: Conditions, ratios: Sequence[float], repeats: int
) -> tuple[Rows, Rows]:
    """Return one row per group in execution order, and the repetitions; see `repeat`. Seconds are medians."""
    groups = list(groups_of(model, main_path(model, conditions.batch)))
    rows: Rows = [{"layer": group.name, "kind": group.kind, "layers": group.layers} for group in groups]
    measures = [partial(_seconds, group, conditions, ratios) for group in groups]
    return rows, repeat(rows, measures, repeats)


def groups_of(model: nn.Module, path: list[TracedLayer]) -> Iterator[LayerGroup]:
    """Group the linear layers of a numbered block by sub-block (kind: its last name, attn or mlp)."""
    seen = set()
    for layer in path:
        parent = layer.name.rpartition(".")[0]
        if isinstance(layer.module, nn.Conv2d):
            yield LayerGroup(layer.name, "conv", layer, [layer.name], None)
        elif parent in ("", block_name(layer.name)):
            yield LayerGroup(layer.name, "fc", layer, [layer.name], None)
        elif parent not in seen:
            seen.add(parent)
            inside = [other.name for other in path if other.name.rpartition(".")[0] == parent]
            yield LayerGroup(parent, parent.rpartition(".")[2], layer, inside, model.get_submodule(parent))


def _seconds(group: LayerGroup, conditions: Conditions, ratios: Sequence[float]) -> list[float]:
    """Return forward seconds at full rank and at each ratio."""
    if group.whole is None:
        units = at_each_ratio(group.first, conditions, ratios)
    else:
        inside = [name.rpartition(".")[2] for name in group.layers]
        units = sub_block_at_each_ratio(group.whole, inside, ratios)
    return [median(unit.forward) for unit in take_turns(units, group.first.input_shape, conditions)]
