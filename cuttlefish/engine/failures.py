"""What ends a run while it trains, as one sentence that names what to change."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from cuttlefish.config.schema import RecipeConfig, TrainerConfig
from cuttlefish.errors import CuttlefishError


def check_loss(loss: float, model: nn.Module, epoch: int) -> None:
    """Raise CuttlefishError, with the largest weights' norms, if a loss of epoch `epoch` is not finite."""
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


@contextmanager
def explain_torch_errors(recipe: RecipeConfig, trainer: TrainerConfig) -> Iterator[None]:
    """Turn two refusals of torch into a CuttlefishError that names what to change.

    They are: no more memory (on a GPU or the host), and, in deterministic mode, an operation that has no deterministic form on
    this device.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        sentence = _sentence(error, recipe, trainer)
        if sentence is None:
            raise
        raise CuttlefishError(sentence) from error


def _sentence(error: MemoryError | RuntimeError, recipe: RecipeConfig, trainer: TrainerConfig) -> str | None:
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text:
        return (
            f"out of memory ({text.split('. ')[0] or 'no more memory'}): lower recipe.batch_size={recipe.batch_size} "
            f"(another result), or keep it and choose trainer.precision=bf16, more trainer.devices than {trainer.devices}, "
            "or a smaller recipe.eval_batch_size; the last checkpoint is intact"
        )
    if "does not have a deterministic implementation" in text:
        return (
            f"trainer.deterministic=true, but {text.split()[0]} of this network has no deterministic form on this device: "
            "use trainer.device=cpu, another network or trainer.deterministic=false"
        )
    return None
