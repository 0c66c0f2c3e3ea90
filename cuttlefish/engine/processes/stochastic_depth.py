"""Stochastic depth whose choices are a function of seed, step and place in the global batch.

timm's DropPath draws from each process's generator, so that the number of processes would change a run.
Ordinary dropout does, within the network, and stays so.
"""

import sys

import torch
from torch import Tensor, nn

from cuttlefish.tasks.base import Batch
from cuttlefish.tasks.randomness import random_integers

STREAM = 0x44726F70
"""Keeps these integers apart from those that tasks draw under the same seed."""
BITS = 24


class StochasticDepth:
    """The DropPath modules of timm in a model, which are told before each forward pass what to keep.

    They are changed in place, without a change of the model's state dict.
    """

    def __init__(self, model: nn.Module, seed: int):
        self.seed, self.paths = seed, [path for path in model.modules() if _drops(path)]
        for path in self.paths:
            path.__class__ = _told(type(path))
            path.kept = None

    def choose(self, batch: Batch, step: int) -> None:
        """Choose what the next forward pass keeps, of a part of step number `step`'s global batch."""
        if not self.paths:
            return
        shape = len(self.paths), batch.global_size
        integers = random_integers((STREAM, self.seed, step), shape[0] * shape[1]).view(shape)
        mine = integers[:, batch.first : batch.first + len(batch)] & (2**BITS - 1)
        keep = torch.tensor([1 - path.drop_prob for path in self.paths], dtype=torch.float64)[:, None]
        scale = torch.tensor([path.scale_by_keep for path in self.paths])[:, None]
        kept = (mine < keep * 2**BITS) / torch.where(scale, keep.clamp(min=2**-BITS), 1.0)
        device = batch.targets.device
        for path, own in zip(self.paths, kept.to(torch.float32).to(device, non_blocking=True), strict=True):
            path.kept = own

    def forget(self) -> None:
        """Let the modules draw themselves again, as in passes that are no part of a step."""
        for path in self.paths:
            path.kept = None


def _drops(module: nn.Module) -> bool:
    timm = sys.modules.get("timm.layers")  # without it there is no such module
    return timm is not None and isinstance(module, timm.DropPath) and module.drop_prob > 0


_CLASSES: dict[type, type] = {}


def _told(kind: type) -> type:
    """Return a DropPath whose forward pass keeps what `StochasticDepth` chose."""
    if hasattr(kind, "kept"):
        return kind

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        if not self.training or self.kept is None or len(self.kept) != len(x):
            return kind.forward(self, x)
        return x * self.kept.to(x.dtype).view(-1, *[1] * (x.ndim - 1))

    if kind not in _CLASSES:
        _CLASSES[kind] = type(kind.__name__, (kind,), {"forward": forward, "kept": None})
    return _CLASSES[kind]
