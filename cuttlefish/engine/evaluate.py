"""Loss and metrics on an evaluation set: summed on the device, copied to the host once."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import isfinite

import torch
from torch import Tensor

from cuttlefish.engine.processes.world import World
from cuttlefish.lowrank.trace import call_model
from cuttlefish.methods.base import Context, Method
from cuttlefish.tasks.base import Batch, Task


@dataclass(frozen=True)
class Scores:
    """Loss (mean over samples) and metrics by name."""

    loss: float
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def accuracy(self) -> float | None:
        return self.metrics.get("accuracy")


def at_least_float32(outputs: Tensor) -> Tensor:
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))


@torch.no_grad()
def evaluate(
    context: Context, method: Method, task: Task, batches: Callable[[str], Iterable[Batch]], world: World
) -> Scores:
    """Evaluate the context's model on all evaluation sets in eval mode, and restore its mode.

    Args:
        batches: Returns this process's batches of an evaluation set.
    """
    model = context.model
    with method.evaluating(model):
        training = model.training
        model.eval()
        found = [_evaluate_on(context, task, split, batches(split), world) for split in task.evaluation_sets]
        model.train(training)
    metrics = dict(found[0].metrics)
    for split, others in zip(task.evaluation_sets[1:], found[1:], strict=True):
        metrics |= {f"{name}_{split}": value for name, value in others.metrics.items()}
    return Scores(found[0].loss, metrics)


def _evaluate_on(context: Context, task: Task, split: str, batches: Iterable[Batch], world: World) -> Scores:
    sums, metrics = torch.zeros(2, dtype=torch.float64, device=context.device), task.metrics(split)
    for batch in batches:
        if not len(batch):
            metrics.skip()
            continue
        with context.autocast():
            outputs = at_least_float32(call_model(context.model, batch.inputs))
        sums[0] += task.loss(outputs, batch)
        sums[1] += len(batch)
        metrics.update(outputs, batch.targets)
    loss, samples = world.sum(sums).tolist()
    loss /= max(samples, 1)
    # Predictions that are not finite have no metrics; the caller refuses their loss.
    return Scores(loss, metrics.compute(world.gather) if isfinite(loss) else {})
