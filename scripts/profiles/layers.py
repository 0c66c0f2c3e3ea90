"""Time single layers, and a transformer's attention and MLP sub-blocks, at each rank ratio (figure 6)."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from statistics import median
from typing import NamedTuple

from torch import nn

from cuttlefish.lowrank.path import main_path
from cuttlefish.lowrank.profiling import block_name
from cuttlefish.lowrank.profiling.timing import Conditions, take_turns
from cuttlefish.lowrank.trace import TracedLayer
from scripts.profiles.units import Rows, at_each_ratio, repeat, sub_block_at_ratios


class LayerGroup(NamedTuple):
    """One timed unit: a layer with its norm and activation, or a sub-block, named by its first layer."""

    name: str
    kind: str
    first: TracedLayer
    layers: list[str]
    whole: nn.Module | None


def profile_layers(
    model: nn.Module,
    conditions: Conditions,
    ratios: Sequence[float],
    repeats: int,
    chosen: Mapping[str, float] | None = None,
) -> tuple[Rows, Rows]:
    """Return one row per group in execution order, and the repetitions; see `repeat`. Seconds are medians.

    Args:
        chosen: Layer -> a ratio of its own. Rows of groups with such layers have these as `chosen`, and as
            `chosen_s` the seconds with them low-rank and the others dense.
    """
    groups = list(groups_of(model, main_path(model, conditions.batch)))
    own = [
        {name: (chosen or {})[name] for name in group.layers if name in (chosen or {})} for group in groups
    ]
    rows: Rows = [{"layer": group.name, "kind": group.kind, "layers": group.layers} for group in groups]
    measures = [
        partial(_seconds, group, conditions, ratios, ranks) for group, ranks in zip(groups, own, strict=True)
    ]
    repetitions = repeat(rows, measures, repeats)
    for row, given in zip(rows, own, strict=True):
        if given:
            row |= {"chosen": given, "chosen_s": row["low_s"].pop()}
    return rows, repetitions


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


def _seconds(
    group: LayerGroup, conditions: Conditions, ratios: Sequence[float], own: Mapping[str, float]
) -> list[float]:
    """Return forward seconds at full rank, at each ratio, and last at the layers' own ratios, if any."""
    if group.whole is None:
        units = at_each_ratio(group.first, conditions, [*ratios, *own.values()])
    else:
        each = [dict.fromkeys(group.layers, ratio) for ratio in ratios] + ([dict(own)] if own else [])
        inside = [{name.rpartition(".")[2]: ratio for name, ratio in one.items()} for one in each]
        units = sub_block_at_ratios(group.whole, inside)
    return [median(unit.forward) for unit in take_turns(units, group.first.input_shape, conditions)]
