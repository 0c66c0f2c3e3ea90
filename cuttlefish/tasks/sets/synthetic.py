"""Learnable synthetic images: a prototype per class plus noise, in integers for reproducible bytes."""

import numpy as np

from cuttlefish.config.schema import DataConfig
from cuttlefish.tasks.image_set import Arrays, ImageSet
from cuttlefish.tasks.split import SEED

VERSION = 1
CLASSES, IMAGE_SIZE, TRAIN_IMAGES, TEST_IMAGES = 10, 32, 1000, 500
CELLS = 4
"""A prototype is a CELLS × CELLS grid of colours."""
NOISE = 64
"""The noise of a pixel is uniform in ±NOISE (of 256 levels)."""


def classes(config: DataConfig) -> int:
    return config.classes or CLASSES


def content(config: DataConfig) -> dict[str, object]:
    return {
        "synthetic": VERSION,
        "classes": classes(config),
        "image_size": config.image_size or IMAGE_SIZE,
        **_sizes(config),
    }


def load(config: DataConfig, split: str) -> Arrays:
    """Return images (N, S, S, 3), S = `data.image_size` (32), and labels, which cycle through the classes."""
    count, size = _sizes(config)[split], config.image_size or IMAGE_SIZE
    prototypes = np.random.RandomState(SEED).randint(NOISE, 256 - NOISE, (classes(config), CELLS, CELLS, 3))
    labels = np.arange(count) % classes(config)
    cell = np.arange(size) * CELLS // size
    noise = np.random.RandomState(SEED + {"train": 1, "test": 2}[split]).randint(
        -NOISE, NOISE + 1, (count, size, size, 3), dtype=np.int16
    )
    return (prototypes[:, cell][:, :, cell].astype(np.int16)[labels] + noise).astype(np.uint8), labels


def _sizes(config: DataConfig) -> dict[str, int]:
    return {"train": config.train_images or TRAIN_IMAGES, "test": config.test_images or TEST_IMAGES}


DATA_SETS = {
    "synthetic": ImageSet(
        "Synthetic images",
        classes=classes,
        load=load,
        content=content,
        own=("classes", "image_size", "train_images", "test_images"),
    )
}
