"""The processes that train one model together; one process is the simple case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class World:
    """process: this one's index, 0 … processes − 1."""

    process: int = 0
    processes: int = 1

    @property
    def is_first(self) -> bool:
        return self.process == 0

    def agree(self, value: Any) -> Any:
        """The first process's value, on every process."""
        if self.processes == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def sum(self, tensor: Tensor) -> Tensor:
        """Summed over processes, in place."""
        if self.processes > 1:
            dist.all_reduce(tensor)
        return tensor

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """What the training step calls: `model` itself, or DDP around it (which also broadcasts the first's weights)."""
        if self.processes == 1:
            return model
        ids = [device.index] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)
