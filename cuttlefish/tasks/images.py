"""Image sets in memory as tasks: training and evaluation images on the device."""

from collections.abc import Iterator

import torch

from cuttlefish.config.schema import DataConfig
from cuttlefish.tasks.base import Batch, Task
from cuttlefish.tasks.image_set import Arrays, ImageSet
from cuttlefish.tasks.resident import ResidentImages
from cuttlefish.tasks.split import some_of_each_class, validation_split


class ImageTask(Task):
    """Classification of images, of a training and an evaluation set on the device."""

    unit = "image"

    def __init__(self, name: str, digest: str, classes: int, train: ResidentImages, test: ResidentImages):
        self.name, self.digest, self.classes, self.train, self.test = name, digest, classes, train, test
        self.input_shape, self.train_size = train.input_shape, len(train)

    def train_batches(
        self, batch_size: int, *, seed: int, epoch: int, first: int = 0, process: int = 0, processes: int = 1
    ) -> Iterator[Batch]:
        return self.train.batches(
            batch_size, seed=seed, epoch=epoch, train=True, first=first, process=process, processes=processes
        )

    def eval_batches(
        self, batch_size: int, *, split: str = "", process: int = 0, processes: int = 1
    ) -> Iterator[Batch]:
        return self.test.batches(batch_size, train=False, process=process, processes=processes)

    def example_batch(self, size: int) -> Batch:
        return self.train.example(size)

    def samples(self, size: int, seed: int, order: int = 0) -> Iterator[Batch]:
        return self.train.samples(size, seed, order)

    def class_counts(self) -> list[int]:
        return self.train.labels.cpu().bincount(minlength=self.classes).tolist()


def load_images(
    chosen: ImageSet,
    config: DataConfig,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    channels_last: bool = True,
) -> ImageTask:
    """Load the data set, reduce and split it, and move it to `device`.

    Raises:
        CuttlefishError: The data is missing or invalid, or the settings do not fit it.
    """
    digest, (train, test) = chosen.digest(config), _splits(chosen, config)
    common = {"mean": config.mean, "std": config.std, "device": device}
    common |= {"dtype": dtype, "channels_last": channels_last}
    return ImageTask(
        config.name,
        digest,
        chosen.classes(config),
        ResidentImages(*train, crop_padding=config.crop_padding, flip=config.flip, **common),
        ResidentImages(*test, **common),
    )


def _splits(chosen: ImageSet, config: DataConfig) -> tuple[Arrays, Arrays]:
    images, labels = chosen.load(config, "train")
    if config.images_per_class is not None:
        kept = some_of_each_class(labels, config.images_per_class, config.images_seed)
        images, labels = images[kept], labels[kept]
    if config.evaluate_on == "test":
        return (images, labels), chosen.load(config, "test")
    kept, held_out = validation_split(labels)
    return (images[kept], labels[kept]), (images[held_out], labels[held_out])
