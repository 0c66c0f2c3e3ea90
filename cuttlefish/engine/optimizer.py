"""Optimizers from config, fused where the device has it."""

from typing import Any

import torch

from cuttlefish.config.schema import OptimizerConfig


def build_optimizer(
    config: OptimizerConfig, groups: list[dict[str, Any]], lr: float
) -> torch.optim.Optimizer:
    """groups: parameter groups with their own weight decay, as `Method.param_groups` gives them."""
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=tuple(config.betas), eps=config.eps, fused=True)
    return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, nesterov=config.nesterov, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
