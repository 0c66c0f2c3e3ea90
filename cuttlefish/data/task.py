"""A data set as a run sees it: what to train on, what to evaluate on, and how many classes."""

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

import numpy as np
import torch

from cuttlefish.config.schema import DataConfig
from cuttlefish.data.files import data_digest
from cuttlefish.data.resident import ResidentImages
from cuttlefish.data.split import first_of_each_class, validation_split
from cuttlefish.errors import CuttlefishError

FAMILIES = {
    "cifar10": "cifar",
    "cifar100": "cifar",
    "svhn": "svhn",
    "digits": "digits",
    "synthetic": "synthetic",
}
"""Kind to module, each of which has `classes(config)` and `load(config, split)`."""


@dataclass(frozen=True)
class Task:
    """input_shape: (C, H, W); test: what is evaluated on, the validation part of the training set if that is chosen."""

    name: str
    classes: int
    input_shape: tuple[int, int, int]
    train: ResidentImages
    test: ResidentImages
    digest: str


def load_task(config: DataConfig, device: torch.device | str) -> Task:
    """Load, reduce, split and move to `device`. Raises CuttlefishError if the data or the settings do not allow it."""
    _check(config)
    digest = data_digest(config)
    family = import_module(f"cuttlefish.data.{FAMILIES[config.kind]}")
    train, test = _splits(family, config)
    normalisation = {"mean": config.mean, "std": config.std, "device": device}
    resident = ResidentImages(*train, crop_padding=config.crop_padding, flip=config.flip, **normalisation)
    return Task(
        config.name,
        family.classes(config),
        resident.input_shape,
        resident,
        ResidentImages(*test, **normalisation),
        digest,
    )


def _splits(
    family: ModuleType, config: DataConfig
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    images, labels = family.load(config, "train")
    if config.images_per_class is not None:
        kept = first_of_each_class(labels, config.images_per_class)
        images, labels = images[kept], labels[kept]
    if config.evaluate_on == "test":
        return (images, labels), family.load(config, "test")
    kept, held_out = validation_split(labels)
    return (images[kept], labels[kept]), (images[held_out], labels[held_out])


def _check(config: DataConfig) -> None:
    if len(config.mean) != 3 or len(config.std) != 3 or min(config.std) <= 0:
        raise CuttlefishError(
            f"data.mean={config.mean} and data.std={config.std} should be three numbers each, those of std positive"
        )
    if config.crop_padding < 0:
        raise CuttlefishError(
            f"data.crop_padding={config.crop_padding} should be a number of pixels, 0 or more"
        )
    for name in ("image_size", "classes", "train_images", "test_images"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise CuttlefishError(f"data.{name}={value} should be at least 1")
