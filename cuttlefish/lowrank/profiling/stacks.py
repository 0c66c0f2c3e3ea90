"""Which layers are worth factorizing: time stacks of layers at full rank and at ratio α (paper, section 3.5).

A stack is a run of layers with one output resolution (for linear layers: one block). Leading stacks that do
not get τ times faster stay dense; everything behind the last of them is factorized, as far as it may be
(`cuttlefish.lowrank.path`).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import nn

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.path import candidates, embeddings, main_path
from cuttlefish.lowrank.profiling import timing
from cuttlefish.lowrank.trace import Batch, Forward, TracedLayer, first_tensor


@dataclass
class Stack:
    """Seconds of a pass over the layers, each as conv + batch norm + activation: median (and mean) of runs.

    intensity: B·m·n·k²·HW / (m·n·k² + B·m·HW) of the full-rank layers, multiply-accumulates a number moved.
    """

    name: str
    layers: list[str]
    full_forward: float
    low_forward: float
    full_backward: float | None
    low_backward: float | None
    full_forward_mean: float
    low_forward_mean: float
    intensity: float
    factorize: bool = False

    @property
    def speedup(self) -> float:
        """Full-rank over low-rank seconds, forward."""
        return self.full_forward / self.low_forward

    @property
    def backward_speedup(self) -> float | None:
        """The same backward; None where that was not timed."""
        return self.full_backward / self.low_backward if self.full_backward and self.low_backward else None


@dataclass
class StackProfile:
    """The measured stacks and what follows from them; printed, a table.

    k: leading dense layers of the main path, counted from 1 with the first layer. layers: those to factorize.
    """

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
        """The other convention for K: the number of the first factorized layer."""
        return self.k + 1

    def to_dict(self) -> dict[str, Any]:
        """Return the profile as plain containers, speed-ups included."""
        rows = [
            asdict(stack) | {"speedup": stack.speedup, "backward_speedup": stack.backward_speedup}
            for stack in self.stacks
        ]
        return asdict(self) | {"stacks": rows, "first_factorized": self.first_factorized}

    def __str__(self) -> str:
        head = f"{'stack':<12}{'layers':>7}{'full ms':>10}{'low ms':>10}{'speed-up':>10}"
        lines = [f"{head}{'backward':>10}{'intensity':>11}  factorize"]
        for stack in self.stacks:
            backward = f"{stack.backward_speedup:.2f}" if stack.backward_speedup else "-"
            lines.append(
                f"{stack.name:<12}{len(stack.layers):>7}{stack.full_forward * 1e3:>10.2f}"
                f"{stack.low_forward * 1e3:>10.2f}{stack.speedup:>10.2f}{backward:>10}"
                f"{stack.intensity:>11.0f}  {'yes' if stack.factorize else 'no'}"
            )
        return "\n".join(
            [*lines, f"K = {self.k} leading dense layers (first factorized: layer {self.first_factorized})"]
        )


def profile_stacks(
    model: nn.Module,
    batch: Batch,
    *,
    ratio: float = 0.25,
    threshold: float = 1.5,
    repeats: int = 11,
    backward: bool = True,
    extra_bn: bool = False,
    shortcuts: bool = False,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    cost_model: bool = False,
    forward: Forward | None = None,
) -> StackProfile:
    """Measure every stack in the batch's size and layout, at full rank and at a ratio of it (section 3.5).

    The model itself is only traced, never changed.

    Args:
        model: A plain module, neither wrapped nor compiled.
        batch: A training batch of its inputs: a tensor (B × …), a tuple or a mapping.
        ratio: α, the rank as a fraction of full rank.
        threshold: τ, the speed-up from which on a stack is worth factorizing.
        repeats: ζ, runs of each layer, the first of which is dropped.
        backward: Time the backward pass, too (it is reported; the forward time decides).
        extra_bn: Time a batch norm between the factors, too.
        shortcuts: Factorize the 1×1 convolutions beside the main path, too.
        autocast: The precision of the timed passes, as a context manager.
        cost_model: Use no clock, but arithmetic intensity against a fixed balance, the same everywhere.
        forward: How to call the model on a batch; model(x), model(*x) or model(**x) by default.

    Raises:
        CuttlefishError: The model is wrapped or has nothing to factorize, or there are too few repeats.
    """
    if not isinstance(repeats, int) or repeats < 2:
        raise CuttlefishError(f"repeats={repeats!r} must be at least 2, for the first of the runs is dropped")
    began = perf_counter()
    path = main_path(model, batch, shortcuts=shortcuts, forward=forward)
    possible = set(candidates(model, path))
    tensor = first_tensor(batch)
    conditions = timing.Conditions(tensor, ratio, repeats, backward, extra_bn, autocast)
    groups = group_stacks([layer for layer in path if layer.name in possible])
    stacks = [_timed(name, layers, conditions, cost_model) for name, layers in groups.items()]
    k, chosen = decide(path, stacks, threshold)
    source = "cost model" if cost_model else "timed"
    seconds = perf_counter() - began
    return StackProfile(
        ratio, threshold, list(tensor.shape), source, str(tensor.device), seconds, k, chosen, stacks
    )


def _timed(name: str, layers: list[TracedLayer], conditions: timing.Conditions, cost_model: bool) -> Stack:
    time_layer = timing.estimate if cost_model else timing.measure
    with torch.random.fork_rng():  # the throw-away layers must not move the run's random numbers
        timings = [time_layer(layer, conditions) for layer in layers]
    sums: list[Any] = [None if column[0] is None else sum(column) for column in zip(*timings, strict=True)]
    forward, backward, means = sums[:2], sums[2:4], sums[4:]
    names, intensity = [layer.name for layer in layers], _intensity(layers, len(conditions.batch))
    return Stack(name, names, *forward, *backward, *means, intensity=intensity)


def decide(path: list[TracedLayer], stacks: list[Stack], threshold: float) -> tuple[int, list[str]]:
    """K and the layers of the first stack that gets τ times faster and of all behind it; these are marked."""
    first = next((index for index, stack in enumerate(stacks) if stack.speedup > threshold), len(stacks))
    for stack in stacks[first:]:
        stack.factorize = True
    chosen = [layer for stack in stacks[first:] for layer in stack.layers]
    order = [layer.name for layer in path]
    before = path[: order.index(chosen[0])] if chosen else path
    return embeddings(path) + sum(not layer.shortcut for layer in before), chosen


def group_stacks(layers: list[TracedLayer]) -> dict[str, list[TracedLayer]]:
    """Return name → layers: convolutions of one output resolution, or linear layers of one numbered block."""
    stacks: dict[str, list[TracedLayer]] = {}
    for layer in layers:
        if isinstance(layer.module, nn.Conv2d):
            key = "×".join(str(side) for side in layer.output_shape[-2:])
        else:
            key = block_name(layer.name)
        stacks.setdefault(key, []).append(layer)
    return stacks


def block_name(name: str) -> str:
    """Return the dotted name up to its first number (blocks.3 of blocks.3.mlp.fc1), or else the parent."""
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
