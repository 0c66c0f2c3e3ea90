"""Detect and explain failures of training, before training where possible."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor, nn

from cuttlefish.config.recipe import RecipeConfig
from cuttlefish.config.schema import TrainerConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.trace import call_model
from cuttlefish.tasks.base import Task


@torch.no_grad()
def check_training_forward(model: nn.Module, task: Task, size: int, name: str) -> None:
    """Run a copy of the model in train mode, where some networks behave differently than in eval mode.

    The model, its statistics and the run's random state are unchanged.

    Args:
        size: The smallest batch size of an epoch.

    Raises:
        CuttlefishError: It returns more than the task's outputs, or cannot train on a batch this small.
    """
    batch = task.example_batch(size)
    few = task.unit if len(batch) == 1 else f"{task.unit}s"
    with torch.random.fork_rng([batch.targets.device] if batch.targets.is_cuda else []):
        try:
            outputs = call_model(deepcopy(model).train(), batch.inputs)
        except (AssertionError, ValueError, IndexError, TypeError) as error:
            raise CuttlefishError(
                f"{name} cannot be trained on a batch of {len(batch)} {few}, the smallest of an epoch "
                f"({str(error).splitlines()[0]}): choose another recipe.batch_size, so that the last has more"
            ) from error
    shapes = [(len(batch),), (len(batch), 1)] if task.classes is None else [(len(batch), task.classes)]
    if not isinstance(outputs, Tensor) or outputs.shape not in shapes:
        wanted = "one value" if task.classes is None else f"{task.classes} logits"
        raise CuttlefishError(
            f"{name} returns {type(outputs).__name__} in training, where {wanted} for each {task.unit} are "
            "needed: switch its further outputs off in model.arguments (torchvision's aux_logits: false), or "
            "take another model"
        )


def check_loss(loss: float, model: nn.Module, epoch: int, name: str = "the loss") -> None:
    """Raise CuttlefishError, with the largest weights' norms, if a loss of epoch `epoch` is not finite."""
    if not math.isfinite(loss):
        raise CuttlefishError(f"{name} became {loss} in epoch {epoch} {_diverged(model)}")


@torch.no_grad()
def check_weights(model: nn.Module, epoch: int) -> None:
    """Raise CuttlefishError if a weight or statistic is not finite after the last step of epoch `epoch`.

    The loss would show it only a step later. Synchronises with the device once.
    """
    tensors = [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]
    largest = torch._foreach_norm([tensor for tensor in tensors if tensor.numel()], math.inf)
    if largest and not torch.stack([norm.float() for norm in largest]).isfinite().all():
        raise CuttlefishError(f"weights became NaN or infinite in epoch {epoch} {_diverged(model)}")


def _diverged(model: nn.Module) -> str:
    norms = {name: float(parameter.detach().float().norm()) for name, parameter in model.named_parameters()}
    order = {name: norm if math.isfinite(norm) else math.inf for name, norm in norms.items()}
    worst = sorted(norms, key=order.__getitem__, reverse=True)[:3]
    layers = ", ".join(f"‖{name}‖ = {norms[name]:.3g}" for name in worst)
    return (
        f"({layers}); no checkpoint holds it: lower the learning rate (recipe.schedule.peak_lr, or the "
        "method's own), or start again with trainer.precision=fp32 where it was a lower one"
    )


@contextmanager
def explain_torch_errors(recipe: RecipeConfig, trainer: TrainerConfig) -> Iterator[None]:
    """Turn two kinds of torch errors into a CuttlefishError that names what to change.

    They are out of memory (on a GPU or the host) and, in deterministic mode, an operation that has no
    deterministic implementation on this device.
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
            f"out of memory ({text.split('. ')[0] or 'no more memory'}): lower "
            f"recipe.batch_size={recipe.batch_size} (another result), or keep it and choose "
            f"trainer.precision=bf16, more trainer.devices than {trainer.devices}, or a smaller "
            "recipe.eval_batch_size; the last checkpoint is intact"
        )
    if "does not have a deterministic implementation" in text:
        return (
            f"trainer.deterministic=true, but {text.split()[0]} of this network has no deterministic form on "
            "this device: use trainer.device=cpu, another network or trainer.deterministic=false"
        )
    return None
