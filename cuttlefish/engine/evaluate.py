"""Loss and accuracy on a data set, summed on the device and copied to the host once."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


@dataclass(frozen=True)
class Scores:
    """Loss (mean over samples) and accuracy (percent) on a data set."""

    loss: float
    accuracy: float
    samples: int


def scores(sums: Sequence[float]) -> Scores:
    """Return the scores from (sum of losses, correct, samples)."""
    loss, correct, samples = sums
    return Scores(loss / max(samples, 1), 100 * correct / max(samples, 1), int(samples))


def at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    autocast: Callable[[], AbstractContextManager[Any]],
    reduce: Callable[[Tensor], Tensor],
    device: torch.device,
) -> Scores:
    """Evaluate in eval mode and restore the model's mode. `reduce` sums over processes."""
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    training = model.training
    model.eval()
    for batch in batches:
        if len(batch.labels):
            with autocast():
                logits = at_least_float32(model(batch.images))
            sums[0] += cross_entropy(logits, batch.labels, reduction="sum")
            sums[1] += (logits.argmax(1) == batch.labels).sum()
            sums[2] += len(batch.labels)
    model.train(training)
    return scores(reduce(sums).tolist())
