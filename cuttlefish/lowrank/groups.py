"""Optimizer groups: which parameters L2 decay applies to."""

from collections.abc import Set
from typing import Any

from torch import nn


def decay_groups(
    model: nn.Module, weight_decay: float, without_decay: Set[nn.Parameter] = frozenset()
) -> list[dict[str, Any]]:
    """Two optimizer groups: decayed (two or more dimensions, not in `without_decay`) and not decayed (the rest)."""
    decayed, free = [], []
    for parameter in model.parameters():
        if parameter.requires_grad:
            (decayed if parameter.ndim >= 2 and parameter not in without_decay else free).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
