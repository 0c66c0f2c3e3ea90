"""Images in class folders as a task."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count

import numpy as np
import torch
from torch import Tensor

from cuttlefish.config.schema import Config, DataConfig
from cuttlefish.record.provenance import available_cores
from cuttlefish.tasks.base import Batch, Task
from cuttlefish.tasks.folder.images import Augmented, Evaluated, rand_augment
from cuttlefish.tasks.folder.listing import Listing, Split
from cuttlefish.tasks.folder.loader import Draws, Files, pixels_of
from cuttlefish.tasks.folder.mixing import Mixed, Normalised, erase
from cuttlefish.tasks.folder.settings import FolderSettings
from cuttlefish.tasks.metrics import Accuracy
from cuttlefish.tasks.randomness import random_integers
from cuttlefish.tasks.split import some_of_each_class, validation_split

TRAINING, SAMPLES, EXAMPLE = range(3)
ORDER, AUGMENTATION, ERASING, MIXING = range(4)
SIZE, CROP = 224, 0.875
"""Side length of the images, and the part of a resized evaluation image's shorter side that it is."""


class TopFive(Accuracy):
    """Percentages of images whose class is the first, or among the first five."""

    def __init__(self) -> None:
        super().__init__()
        self.near: Tensor | int = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        super().update(outputs, targets)
        self.near = (outputs.topk(5).indices == targets[:, None]).sum() + self.near

    def compute(self, gather) -> dict[str, float]:
        near = sum(gather(int(self.near)))
        found = super().compute(gather)
        samples = sum(gather(self.samples))
        return found | {"accuracy_top5": 100 * near / max(samples, 1)}


class FolderTask(Task):
    """Classification of the images of a listing. A sample is a function of seed, epoch and its number."""

    unit = "image"

    def __init__(
        self, config: Config, settings: FolderSettings, listing: Listing, digest: str,
        device: torch.device, dtype: torch.dtype,
    ):  # fmt: skip
        data, size = config.data, config.data.image_size or SIZE
        self.name, self.digest, self.classes = data.name, digest, len(listing.classes)
        self.settings, self.device, self.channels_last = settings, device, config.trainer.channels_last
        self.train, self.test = _splits(listing, data)
        self.train_size, self.input_shape = len(self.train), (3, size, size)
        self.workers = _workers(settings, config.trainer.devices)
        self.normalised = Normalised(data.mean, data.std, device, dtype)
        self.mixed = _mixed(settings, self.classes)
        evaluated = Evaluated(size, settings.eval_resize or round(size / CROP), settings.interpolation)
        trained = partial(listing.source, "train")
        tested = trained if data.evaluate_on == "validation" else partial(listing.source, "val")
        self.cropped = Files(trained, self.train.files, _crops(data, settings, size))
        self._plain = Files(trained, self.train.files, evaluated)
        self._tested = Files(tested, self.test.files, evaluated)
        self._example: Tensor | None = None

    def train_batches(
        self, batch_size: int, *, seed: int, epoch: int, first: int = 0, process: int = 0, processes: int = 1
    ) -> Iterator[Batch]:
        order, words, erasing = self._drawn(TRAINING, seed, epoch)
        starts = range(first * batch_size, self.train_size, batch_size)
        shares = [
            _share(start, min(batch_size, self.train_size - start), process, processes) for start in starts
        ]
        loaded = self._load(self.cropped, order, words, shares)
        for start, share, pixels in zip(starts, shares, loaded, strict=True):
            images, targets = self.normalised(pixels), self._labels(self.train, order[share])
            if self.settings.erase:
                erase(images, erasing[share].tolist(), self.settings.erase)
            if self.mixed is not None:
                number = start // batch_size
                word = int(random_integers((TRAINING, MIXING, seed, epoch, number), 1))
                images, targets = self.mixed(images, targets, word)
            size = min(batch_size, self.train_size - start)
            yield Batch(self._laid_out(images), targets, size, share.start - start)

    def eval_batches(
        self, batch_size: int, *, split: str = "", process: int = 0, processes: int = 1
    ) -> Iterator[Batch]:
        order, size = np.arange(len(self.test)), len(self.test)
        sizes = [min(batch_size, size - start) for start in range(0, size, batch_size)]
        shares = [
            _share(start, own, process, processes)
            for start, own in zip(range(0, size, batch_size), sizes, strict=True)
        ]
        for own, share, pixels in zip(
            sizes, shares, self._load(self._tested, order, order, shares), strict=True
        ):
            yield Batch(self._laid_out(self.normalised(pixels)), self._labels(self.test, order[share]), own)

    def example_batch(self, size: int) -> Batch:
        size = min(size, self.train_size)
        order, words, _ = self._drawn(EXAMPLE, 0, 0)
        if self._example is None or len(self._example) < size:
            self._example = torch.cat(list(self._load(self._plain, order, words, _pieces(size))))
        images = self.normalised(self._example[:size])
        return Batch(self._laid_out(images), self._labels(self.train, order[:size]), size)

    def samples(self, size: int, seed: int, order: int = 0) -> Iterator[Batch]:
        for epoch in count(order):
            indices, words, _ = self._drawn(SAMPLES, seed, epoch)
            shares = [slice(start, start + size) for start in range(0, self.train_size, size)]
            for share, pixels in zip(shares, self._load(self.cropped, indices, words, shares), strict=True):
                labels = self._labels(self.train, indices[share])
                yield Batch(self._laid_out(self.normalised(pixels)), labels, len(labels))

    def class_counts(self) -> list[int]:
        return np.bincount(self.train.labels, minlength=self.classes).tolist()

    def correct(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Count predictions of the class that has the greatest share of a mixed image."""
        targets = batch.targets if batch.targets.ndim == 1 else batch.targets.argmax(1)
        return (outputs.argmax(1) == targets).sum()

    def metrics(self, split: str = "") -> Accuracy:
        return TopFive() if self.classes > 5 else Accuracy()

    def _drawn(self, stream: int, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (N,) image numbers in the order of an epoch, and their integers for augmenting and erasing.

        With repeated augmentation an epoch has about the first N / repeats images of its order, each several
        times. Blocks of `repeats` images are gone through so often: neighbours, whose images mixup and cutmix
        mix, are never copies of one image.
        """
        size, repeats = self.train_size, self.settings.repeats if stream == TRAINING else 1
        shuffled = random_integers((stream, ORDER, seed, epoch), size).argsort(stable=True)
        block, place = torch.arange(size) // repeats**2, torch.arange(size) % repeats**2
        order, which = shuffled[block * repeats + place % repeats], place // repeats
        kinds = []
        for kind in (AUGMENTATION, ERASING):
            keys = [(stream, kind, seed, epoch, *([again] if again else [])) for again in range(repeats)]
            kinds.append(torch.stack([random_integers(key, size) for key in keys])[which, order].numpy())
        return order.numpy(), *kinds

    def _load(
        self, files: Files, order: np.ndarray, words: np.ndarray, shares: Sequence[slice]
    ) -> Iterator[Tensor]:
        return pixels_of(files, Draws(order, words, shares), self.workers, self.device)

    def _labels(self, split: Split, indices: np.ndarray) -> Tensor:
        return torch.from_numpy(split.labels[indices]).to(self.device, non_blocking=True)

    def _laid_out(self, images: Tensor) -> Tensor:
        return images if self.channels_last else images.contiguous()


def _share(start: int, size: int, process: int, processes: int) -> slice:
    """Return this process's part of a global batch. Parts begin at even places: pairs stay whole."""
    first, last = (size // 2 * number // processes * 2 for number in (process, process + 1))
    return slice(start + first, start + (size if process == processes - 1 else last))


def _pieces(size: int, piece: int = 32) -> list[slice]:
    return [slice(start, min(start + piece, size)) for start in range(0, size, piece)]


def _splits(listing: Listing, data: DataConfig) -> tuple[Split, Split]:
    train = listing.train
    if data.images_per_class is not None:
        train = train[some_of_each_class(train.labels, data.images_per_class, data.images_seed)]
    if data.evaluate_on == "test":
        return train, listing.val
    kept, held_out = validation_split(train.labels)
    return train[kept], train[held_out]


def _crops(data: DataConfig, settings: FolderSettings, size: int) -> Augmented:
    policy = settings.rand_augment and rand_augment(
        settings.rand_augment, size, data.mean, settings.interpolation
    )
    scale = settings.crop_scale and tuple(settings.crop_scale)
    return Augmented(size, scale, data.flip, settings.interpolation, policy)


def _mixed(settings: FolderSettings, classes: int) -> Mixed | None:
    if not (settings.mixup or settings.cutmix):
        return None
    return Mixed(settings.mixup, settings.cutmix, settings.switch, classes)


def _workers(settings: FolderSettings, devices: int) -> int:
    if settings.workers is not None:
        return settings.workers
    here = int(os.environ.get("LOCAL_WORLD_SIZE", devices))
    return max(1, available_cores() // here)
