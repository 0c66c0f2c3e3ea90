"""Which layers are worth factorizing: time stacks of layers at full rank and at ratio α (paper, section 3.5).

A stack is a run of layers with one output resolution (for linear layers: one block). Leading stacks that do not get τ times
faster stay dense; everything behind the last of them is factorized. First and last layers never are, nor are shortcuts.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank import timing
from cuttlefish.lowrank.surgery import find_layers
from cuttlefish.lowrank.trace import TracedLayer, trace


@dataclass
class Stack:
    """Seconds of one pass over the stack's layers, each as conv + batch norm + activation; median (and mean) of the runs."""

    name: str
    layers: list[str]
    full_forward: float
    low_forward: float
    full_backward: float | None
    low_backward: float | None
    full_forward_mean: float
    low_forward_mean: float
    intensity: float
    """Arithmetic intensity B·m·n·k²·HW / (m·n·k² + B·m·HW) of the full-rank layers (multiply-accumulates a number moved)."""
    factorize: bool = False

    @property
    def speedup(self) -> float:
        return self.full_forward / self.low_forward

    @property
    def backward_speedup(self) -> float | None:
        return self.full_backward / self.low_backward if self.low_backward else None


@dataclass
class StackProfile:
    """The measured stacks and what follows. k: leading dense layers of the main path, counted from 1 with the first layer."""

    ratio: float
    threshold: float
    batch: list[int]
    source: str
    device: str
    seconds: float
    k: int = 0
    layers: list[str] = field(default_factory=list)
    stacks: list[Stack] = field(default_factory=list)

    @property
    def first_factorized(self) -> int:
        """The other convention for K: the index of the first factorized layer."""
        return self.k + 1

    def to_dict(self) -> dict[str, Any]:
        rows = [
            asdict(stack) | {"speedup": stack.speedup, "backward_speedup": stack.backward_speedup}
            for stack in self.stacks
        ]
        return asdict(self) | {"stacks": rows, "first_factorized": self.first_factorized}

    def __str__(self) -> str:
        lines = [
            f"{'stack':<12}{'layers':>7}{'full ms':>10}{'low ms':>10}{'speed-up':>10}{'backward':>10}{'intensity':>11}  factorize"
        ]
        for stack in self.stacks:
            backward = f"{stack.backward_speedup:.2f}" if stack.backward_speedup else "-"
            lines.append(
                f"{stack.name:<12}{len(stack.layers):>7}{stack.full_forward * 1e3:>10.2f}{stack.low_forward * 1e3:>10.2f}"
                f"{stack.speedup:>10.2f}{backward:>10}{stack.intensity:>11.0f}  {'yes' if stack.factorize else 'no'}"
            )
        return "\n".join(
            [*lines, f"K = {self.k} leading dense layers (first factorized: layer {self.first_factorized})"]
        )


def main_path(model: nn.Module, example: Tensor, *, shortcuts: bool = False) -> list[TracedLayer]:
    """Convolutions and linear layers in execution order, without shortcut projections unless asked for.

    Raises CuttlefishError if nothing between the first and the last layer can be factorized.
    """
    path = [layer for layer in trace(model, example) if shortcuts or not layer.shortcut]
    if not candidates(model, path):
        refused = find_layers(model).refused
        why = "; ".join(f"{name}: {reason}" for name, reason in list(refused.items())[:3])
        raise CuttlefishError(
            f"this model has no layer to factorize between its first and its last{f' ({why})' if why else ''}"
        )
    return path


def candidates(model: nn.Module, path: list[TracedLayer], k: int = 1) -> list[str]:
    """Names of the layers behind the k-th and before the last that can be factorized. Raises where k is out of range.

    Shortcuts in the path are not counted: those executed behind the k-th layer and its successor are among the names.
    """
    main = [index for index, layer in enumerate(path) if not layer.shortcut]
    if not 0 <= k < len(main):
        raise CuttlefishError(
            f"K = {k} leading dense layers is out of range: the main path has {len(main)} layers"
        )
    possible = find_layers(model).layers
    return [layer.name for layer in path[main[min(max(k, 1), len(main) - 1)] : -1] if layer.name in possible]


def profile_stacks(
    model: nn.Module,
    batch: Tensor,
    *,
    ratio: float = 0.25,
    threshold: float = 1.5,
    repeats: int = 11,
    backward: bool = True,
    extra_bn: bool = False,
    shortcuts: bool = False,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    cost_model: bool = False,
) -> StackProfile:
    """Measure every stack of `model` on `batch` (B × …) at full rank and at `ratio` of it, in this batch size and layout.

    repeats: ζ runs of each, the first dropped. backward: time that too (reported; the forward time decides).
    cost_model: no clock, but arithmetic intensity against a fixed machine balance: the same answer everywhere.
    The model itself is only traced, never changed.
    """
    began = perf_counter()
    path = main_path(model, batch, shortcuts=shortcuts)
    possible = set(candidates(model, path))
    conditions = timing.Conditions(batch, ratio, repeats, backward, extra_bn, autocast)
    stacks = []
    for name, layers in group_stacks([layer for layer in path if layer.name in possible]).items():
        with torch.random.fork_rng():  # the throw-away layers must not move the run's random numbers
            timings = [
                (timing.estimate if cost_model else timing.measure)(layer, conditions) for layer in layers
            ]
        columns = [None if column[0] is None else sum(column) for column in zip(*timings, strict=True)]
        stacks.append(Stack(name, [layer.name for layer in layers], *columns, _intensity(layers, len(batch))))
    k, chosen = decide(path, stacks, threshold)
    source = "cost model" if cost_model else "timed"
    seconds = perf_counter() - began
    return StackProfile(
        ratio, threshold, list(batch.shape), source, str(batch.device), seconds, k, chosen, stacks
    )


def decide(path: list[TracedLayer], stacks: list[Stack], threshold: float) -> tuple[int, list[str]]:
    """K and the layers to factorize: those of the first stack that gets τ times faster, and of all behind it (which is marked)."""
    first = next((index for index, stack in enumerate(stacks) if stack.speedup > threshold), len(stacks))
    for stack in stacks[first:]:
        stack.factorize = True
    chosen = [layer for stack in stacks[first:] for layer in stack.layers]
    order = [layer.name for layer in path]
    return sum(not layer.shortcut for layer in (path[: order.index(chosen[0])] if chosen else path)), chosen


def group_stacks(layers: list[TracedLayer]) -> dict[str, list[TracedLayer]]:
    """Consecutive convolutions of one output resolution; linear layers by the numbered block they are in."""
    stacks: dict[str, list[TracedLayer]] = {}
    for layer in layers:
        if isinstance(layer.module, nn.Conv2d):
            key = "×".join(str(side) for side in layer.output_shape[-2:])
        else:
            key = block_name(layer.name)
        stacks.setdefault(key, []).append(layer)
    return stacks


def block_name(name: str) -> str:
    """The dotted name up to its first number: blocks.3 of blocks.3.mlp.fc1; without a number, the parent."""
    parts = name.split(".")
    index = next((index for index, part in enumerate(parts) if part.isdigit()), max(len(parts) - 2, 0))
    return ".".join(parts[: index + 1])


def _intensity(layers: list[TracedLayer], batch: int) -> float:
    work = traffic = 0.0
    for layer in layers:
        positions = batch * timing.positions(layer)
        weight = layer.module.weight
        work += weight.numel() * positions
        traffic += weight.numel() + weight[0].numel() * positions / timing.kernel_area(layer.module)
    return work / traffic
