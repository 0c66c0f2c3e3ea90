"""The interface of a task: batches, a loss and metrics. Engine, methods and records know no more of it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from cuttlefish.tasks.metrics import Accuracy, Metrics

Inputs = Tensor | dict[str, Tensor]
"""A model's inputs: one tensor, or several by the names of its arguments; dimension 0 is the batch."""


@dataclass(frozen=True)
class Batch:
    """This process's share of a global batch, possibly empty.

    Attributes:
        inputs: What the model is called on (`cuttlefish.lowrank.trace.call_model`).
        targets: (B,) classes as int64, or values as float32.
        global_size: Number of samples in the global batch, over all processes.
        first: Place of the first sample in the global batch.
    """

    inputs: Inputs
    targets: Tensor
    global_size: int
    first: int = 0

    def __len__(self) -> int:
        return len(self.targets)

    def parts(self, count: int) -> "list[Batch]":
        """Return the batch in at most `count` parts of about equal size, none of them empty if it is not."""
        count = min(count, max(len(self), 1))
        cuts = [len(self) * part // count for part in range(count + 1)]
        return [self] if count == 1 else [self._part(slice(*ends)) for ends in pairwise(cuts)]

    def _part(self, rows: slice) -> "Batch":
        inputs = self.inputs
        cut = (
            inputs[rows] if isinstance(inputs, Tensor) else {name: one[rows] for name, one in inputs.items()}
        )
        return Batch(cut, self.targets[rows], self.global_size, self.first + rows.start)


class Task(ABC):
    """Training and evaluation data, how a model is judged on them, and what it must fit.

    A model returns logits (B, classes), or for a regression (`classes` is None) values (B,) or (B, 1). The
    engine passes them on in at least float32.

    Attributes:
        name: The data's name in records.
        digest: SHA-256 of the data's content.
        classes: Number of classes; None for a regression.
        train_size: Number of training samples.
        primary: Name of the headline metric.
        lower_is_better: Names of the metrics of which a lower value is the better one.
        evaluation_sets: Names of the evaluation sets. The metrics of the first, which has the headline
            metric and the loss, keep their names; those of another one get its name appended.
        input_shape: (C, H, W) of images, which their models are built for; None for other inputs.
        unit: What a sample is called in messages.
        revisions: Repository on the hub -> commit that the data was read at.
    """

    name: str
    digest: str
    classes: int | None
    train_size: int
    primary: str = "accuracy"
    lower_is_better: frozenset[str] = frozenset()
    evaluation_sets: tuple[str, ...] = ("",)
    input_shape: tuple[int, int, int] | None = None
    unit: str = "sample"
    revisions: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def train_batches(
        self, batch_size: int, *, seed: int, epoch: int, first: int = 0, process: int = 0, processes: int = 1
    ) -> Iterator[Batch]:
        """Yield this process's shares of the global batches of one epoch, from batch `first` on.

        Order and augmentation are a function of (seed, epoch, sample index) only. There are
        ceil(train_size / batch_size) global batches for every process; the last may be smaller, and a share
        may be empty.
        """

    @abstractmethod
    def eval_batches(
        self, batch_size: int, *, split: str = "", process: int = 0, processes: int = 1
    ) -> Iterator[Batch]:
        """Yield this process's contiguous shares of the batches of one of the `evaluation_sets`, in order."""

    @abstractmethod
    def example_batch(self, size: int) -> Batch:
        """Return always the same `size` (or all) training samples, not augmented."""

    @abstractmethod
    def samples(self, size: int, seed: int, order: int = 0) -> Iterator[Batch]:
        """Yield augmented training batches without end, the same on all processes and for any training order.

        Args:
            order: Number of the shuffled order of the set to begin with.
        """

    def class_counts(self) -> list[int]:
        """Return the number of training samples of each class; empty for a regression."""
        return []

    def shapes(self, size: int) -> list[Batch]:
        """Return one batch of `size` samples for every shape of inputs that occurs in training."""
        return [self.example_batch(size)]

    def loss(self, outputs: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Return the loss summed over the batch: cross-entropy, or the squared error of a regression."""
        if self.classes is None:
            return mse_loss(outputs.reshape(-1), batch.targets, reduction="sum")
        return cross_entropy(outputs, batch.targets, reduction="sum", label_smoothing=label_smoothing)

    def correct(self, outputs: Tensor, batch: Batch) -> Tensor | int:
        """Return how many predictions are right, for the training accuracy; 0 for a regression."""
        return 0 if self.classes is None else (outputs.argmax(1) == batch.targets).sum()

    def metrics(self, split: str = "") -> Metrics:
        """Return new metrics for one pass over one of the `evaluation_sets`."""
        return Accuracy()
