"""Find the convolutions of a model and the batch norms directly behind them, in one forward pass."""

import torch
from torch import Tensor, nn

from cuttlefish.lowrank.trace import NORMS, Batch, call_model, evaluating, first_samples


@torch.no_grad()
def convolutions(model: nn.Module, example: Batch) -> dict[str, str | None]:
    """Return the convolutions in execution order, each with the batch norm directly after it, or None."""
    outputs: dict[int, tuple[str, Tensor]] = {}
    norm_of: dict[str, str | None] = {}
    handles = []

    def watch(name: str, module: nn.Module) -> None:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(module, nn.Conv2d):
                norm_of.setdefault(name, None)
                outputs[id(output)] = name, output  # kept alive, so that ids are unique
            elif id(inputs[0]) in outputs:
                norm_of[outputs[id(inputs[0])][0]] = name

        handles.append(module.register_forward_hook(hook))

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | NORMS[0]):
            watch(name, module)
    try:
        with evaluating(model):
            call_model(model, first_samples(example, 1))
    finally:
        for handle in handles:
            handle.remove()
    return norm_of
