"""What a model really executes: its convolutions and linear layers in order, with shapes and roles.

Layers are found by looking at one forward pass, never by their names or positions in the state dict.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

NORMS = (nn.modules.batchnorm._BatchNorm,)


@dataclass
class TracedLayer:
    """One executed layer. Shapes are those of one forward pass of the traced batch (batch dimension first).

    shortcut: a 1×1 convolution beside the main path (its input also feeds another convolution), as in residual blocks.
    normalised: a batch norm takes its output directly.
    """

    name: str
    module: nn.Module
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    shortcut: bool = False
    normalised: bool = False


@torch.no_grad()
def trace(model: nn.Module, example: Tensor) -> list[TracedLayer]:
    """Convolutions and linear layers in the order of their first execution on `example`.

    Runs the model once in eval mode on at most two samples; weights, statistics and modes are as before afterwards.
    """
    calls: list[tuple[str, nn.Module, Tensor, Tensor]] = []
    normalised: set[int] = set()
    handles = []

    def watch(name: str, module: nn.Module) -> None:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            if isinstance(module, NORMS):
                normalised.add(id(inputs[0]))
            else:
                calls.append((name, module, inputs[0], output))

        handles.append(module.register_forward_hook(hook))

    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, *NORMS)):
            watch(name, module)
    try:
        with evaluating(model):
            model(example[:2])
    finally:
        for handle in handles:
            handle.remove()
    return _layers(calls, normalised)


def _layers(calls: list[tuple[str, nn.Module, Tensor, Tensor]], normalised: set[int]) -> list[TracedLayer]:
    # `calls` keeps every tensor alive, so an id names one tensor.
    readers: dict[int, list[nn.Conv2d]] = {}
    for _, module, given, _ in calls:
        if isinstance(module, nn.Conv2d):
            readers.setdefault(id(given), []).append(module)
    layers: dict[str, TracedLayer] = {}
    for name, module, given, output in calls:
        shortcut = isinstance(module, nn.Conv2d) and _is_shortcut(module, readers[id(given)])
        layer = TracedLayer(
            name, module, tuple(given.shape), tuple(output.shape), shortcut, id(output) in normalised
        )
        layers.setdefault(name, layer)
    return list(layers.values())


def _is_shortcut(module: nn.Conv2d, readers: list[nn.Conv2d]) -> bool:
    """Of the convolutions that read one tensor the main path has the larger kernel, else the fewer channels, else comes first."""
    main = min(readers, key=lambda conv: (-conv.kernel_size[0] * conv.kernel_size[1], conv.out_channels))
    return module.kernel_size == (1, 1) and module is not main


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside, every module's own mode restored after."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
