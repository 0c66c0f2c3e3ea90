"""The task of a run: training set, evaluation set and number of classes."""

from dataclasses import dataclass

import torch

from cuttlefish.config.schema import DataConfig
from cuttlefish.data.files import data_digest
from cuttlefish.data.registry import Arrays, DataSet, data_set
from cuttlefish.data.resident import ResidentImages
from cuttlefish.data.split import some_of_each_class, validation_split


@dataclass(frozen=True)
class Task:
    """Training and evaluation data of a run.

    Attributes:
        input_shape: (C, H, W).
        test: The test set, or the validation part of the training set with `data.evaluate_on=validation`.
        digest: `data_digest` of the whole data set.
    """

    name: str
    classes: int
    input_shape: tuple[int, int, int]
    train: ResidentImages
    test: ResidentImages
    digest: str


def load_task(config: DataConfig, device: torch.device | str) -> Task:
    """Load the data set, reduce and split it, and move it to `device`.

    Raises:
        CuttlefishError: The data is missing or invalid, or the settings do not fit it.
    """
    chosen, digest = data_set(config), data_digest(config)
    train, test = _splits(chosen, config)
    common = {"mean": config.mean, "std": config.std, "device": device}
    resident = ResidentImages(*train, crop_padding=config.crop_padding, flip=config.flip, **common)
    evaluated = ResidentImages(*test, **common)
    return Task(config.name, chosen.classes(config), resident.input_shape, resident, evaluated, digest)


def _splits(chosen: DataSet, config: DataConfig) -> tuple[Arrays, Arrays]:
    images, labels = chosen.load(config, "train")
    if config.images_per_class is not None:
        kept = some_of_each_class(labels, config.images_per_class, config.images_seed)
        images, labels = images[kept], labels[kept]
    if config.evaluate_on == "test":
        return (images, labels), chosen.load(config, "test")
    kept, held_out = validation_split(labels)
    return (images[kept], labels[kept]), (images[held_out], labels[held_out])
