"""What to tell of a loss that is no number any more."""

import math

from torch import nn

from cuttlefish.errors import CuttlefishError


def check_loss(loss: float, model: nn.Module, epoch: int) -> None:
    """Raise CuttlefishError if a loss of epoch `epoch` is not finite, with the largest weights' norms."""
    if math.isfinite(loss):
        return
    norms = {name: float(parameter.detach().float().norm()) for name, parameter in model.named_parameters()}
    worst = sorted(
        norms, key=lambda name: norms[name] if math.isfinite(norms[name]) else math.inf, reverse=True
    )[:3]
    layers = ", ".join(f"‖{name}‖ = {norms[name]:.3g}" for name in worst)
    raise CuttlefishError(
        f"the loss became {loss} in epoch {epoch} ({layers}); the last checkpoint is from before it: "
        "lower recipe.schedule.peak_lr or start again with precision=fp32"
    )
