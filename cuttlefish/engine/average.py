"""An exponential moving average of the weights, evaluated in their place."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from cuttlefish.auto.follow.average import split_average


class Average:
    """The average of a model's parameters and buffers: after each step a part of 1 − decay is the model's.

    Args:
        model: The model as it is at first, neither wrapped nor compiled.
        decay: From 0 to 1.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.module = deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the model's weights after a step. Integer buffers, which count, are copied."""
        pairs = list(zip(_tensors(self.module), _tensors(model), strict=True))
        real = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([mine for mine, _ in real], [theirs for _, theirs in real], 1 - self.decay)
        for mine, theirs in pairs:
            if not mine.is_floating_point():
                mine.copy_(theirs)

    def follow(self, model: nn.Module) -> None:
        """Take over a change of the model: a switch to low rank in its basis; any other one begins anew."""
        split_average(model, self.module)
        if [one.shape for one in _tensors(self.module)] != [one.shape for one in _tensors(model)]:
            self.module = deepcopy(model)
        self.module.requires_grad_(False)

    @contextmanager
    def inside(self, model: nn.Module) -> Iterator[None]:
        """Give the model the averaged weights inside, and its own back after."""
        own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self.copy_to(model)
        try:
            yield
        finally:
            model.load_state_dict(own)

    def copy_to(self, model: nn.Module) -> None:
        """Give the model the averaged weights for good."""
        model.load_state_dict(self.module.state_dict())

    def state_dict(self) -> dict[str, Any]:
        return self.module.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
