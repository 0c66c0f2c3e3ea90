"""The task of classifying sentences or pairs of them, or of predicting a value for them."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cuttlefish.errors import CuttlefishError
from cuttlefish.tasks.base import Batch, Task
from cuttlefish.tasks.metrics import Accuracy, Gathered, Metrics
from cuttlefish.tasks.text.examples import Examples
from cuttlefish.tasks.text.measures import measure
from cuttlefish.tasks.text.sentences import ResidentSentences
from cuttlefish.tasks.text.tokens import encode


class TextTask(Task):
    """Sentences on the device.

    Args:
        train: The training set.
        evaluation: Each evaluation set by its name in metrics; the first one's is "".
        classes: Number of classes; None for a regression.
        metrics: Names of the metrics, the headline first.
        tokenizer: The model's, with what it knows of the model (`cuttlefish.models.text`).
        max_length: The most tokens of an input; longer ones are cut.
    """

    unit = "sentence"

    def __init__(
        self,
        name: str,
        digest: str,
        train: Examples,
        evaluation: dict[str, Examples],
        *,
        classes: int | None,
        metrics: Sequence[str],
        tokenizer: Any,
        max_length: int,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
    ):
        self.name, self.digest, self.classes = name, digest, classes
        self.primary, self.measures = metrics[0], tuple(metrics)
        self.evaluation_sets, self.train_size = tuple(evaluation), len(train)
        self._labels = train.labels
        encoded = [encode(tokenizer.tokenizer, tokenizer.digest, split.sentences, max_length)
                   for split in (train, *evaluation.values())]  # fmt: skip
        common = {"pad_id": tokenizer.pad_id, "token_types": tokenizer.uses_token_types, "device": device}
        self.train = ResidentSentences(encoded[0], _targets(train, dtype), **common)
        longest = max(int(one.lengths.max()) for one in encoded)
        padded = sorted({*self.train.padded, longest})
        self.evaluated = {
            split: ResidentSentences(one, _targets(examples, dtype), padded=padded, **common)
            for (split, examples), one in zip(evaluation.items(), encoded[1:], strict=True)
        }

    def train_batches(
        self, batch_size: int, *, seed: int, epoch: int, first: int = 0, process: int = 0, processes: int = 1
    ) -> Iterator[Batch]:
        return self.train.train_batches(
            batch_size, seed=seed, epoch=epoch, first=first, process=process, processes=processes
        )

    def eval_batches(
        self, batch_size: int, *, split: str = "", process: int = 0, processes: int = 1
    ) -> Iterator[Batch]:
        return self.evaluated[split].eval_batches(batch_size, process=process, processes=processes)

    def example_batch(self, size: int) -> Batch:
        return self.train.example(size)

    def samples(self, size: int, seed: int, order: int = 0) -> Iterator[Batch]:
        return self.train.samples(size, seed, order)

    def class_counts(self) -> list[int]:
        return [] if self.classes is None else np.bincount(self._labels, minlength=self.classes).tolist()

    def shapes(self, size: int) -> list[Batch]:
        return self.train.shapes(size)

    def metrics(self, split: str = "") -> Metrics:
        return Accuracy() if self.measures == ("accuracy",) else Gathered(partial(measure, self.measures))


def check_tokenizer(tokenizer: Any, model: str, max_length: int) -> None:
    """Raise CuttlefishError if a model cannot take this tokenizer's tokens, or inputs of this length."""
    if tokenizer.vocabulary > tokenizer.model_vocabulary:
        raise CuttlefishError(
            f"the tokenizer has {tokenizer.vocabulary} tokens and {model} {tokenizer.model_vocabulary} "
            "embeddings: they do not belong together; give the tokenizer that the model was trained with"
        )
    if max_length > tokenizer.max_positions:
        raise CuttlefishError(
            f"data.max_length={max_length} is above the {tokenizer.max_positions} positions of {model}; "
            "choose at most that"
        )


def _targets(examples: Examples, dtype: torch.dtype) -> Tensor:
    """Return classes as they are, and values in at least float32."""
    targets = torch.from_numpy(examples.labels)
    return targets.to(torch.promote_types(dtype, torch.float32)) if targets.is_floating_point() else targets
