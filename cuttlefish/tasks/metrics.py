"""Metrics over an evaluation set, exact for any number of processes and for uneven or empty shares."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from itertools import zip_longest
from math import isfinite
from typing import Any

import numpy as np
from torch import Tensor

Gather = Callable[[Any], list[Any]]
"""Returns the values of all processes in order."""


class Metrics(ABC):
    """Metrics of one pass over an evaluation set."""

    @abstractmethod
    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take in the model's outputs on this process's share of a batch, without waiting for the device."""

    def skip(self) -> None:
        """Take note of a batch of which this process has an empty share."""

    @abstractmethod
    def compute(self, gather: Gather) -> dict[str, float]:
        """Return the values by name, the same on all processes."""


class Accuracy(Metrics):
    """Percentage of right classes, counted on the device."""

    def __init__(self) -> None:
        self.right: Tensor | int = 0
        self.samples = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.right = (outputs.argmax(1) == targets).sum() + self.right
        self.samples += len(targets)

    def compute(self, gather: Gather) -> dict[str, float]:
        right, samples = map(sum, zip(*gather((int(self.right), self.samples)), strict=True))
        return {"accuracy": 100 * right / max(samples, 1)}


class Gathered(Metrics):
    """Metrics that need all predictions at once. They stay on the device until the pass is over.

    Args:
        score: Receives the predictions and the targets of the whole set, each (N,) in its order, and returns
            values by name; one that is undefined (a correlation with a constant) counts as 0.
        predict: Returns (B,) predictions for a batch's outputs: by default the class of logits, or the value
            of outputs (B,) and (B, 1).
    """

    def __init__(
        self,
        score: Callable[[np.ndarray, np.ndarray], Mapping[str, float]],
        predict: Callable[[Tensor], Tensor] | None = None,
    ):
        self.score, self.predict = score, predict or class_or_value
        self.shares: list[tuple[Tensor, Tensor] | None] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.shares.append((self.predict(outputs), targets))

    def skip(self) -> None:
        self.shares.append(None)

    def compute(self, gather: Gather) -> dict[str, float]:
        mine = [share and tuple(column.cpu().numpy() for column in share) for share in self.shares]
        in_order = [share for batch in zip_longest(*gather(mine)) for share in batch if share is not None]
        predictions, targets = map(np.concatenate, zip(*in_order, strict=True))
        values = {name: float(value) for name, value in self.score(predictions, targets).items()}
        return {name: value if isfinite(value) else 0.0 for name, value in values.items()}


def class_or_value(outputs: Tensor) -> Tensor:
    """Return (B,) classes of logits (B, C), or the values of outputs (B,) or (B, 1)."""
    return outputs.argmax(1) if outputs.ndim > 1 and outputs.shape[1] > 1 else outputs.flatten()
