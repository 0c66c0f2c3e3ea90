"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), from the python version's files."""

from pathlib import Path

import numpy as np

from cuttlefish.config.schema import DataConfig
from cuttlefish.data.array_pickle import read_arrays
from cuttlefish.data.files import data_files
from cuttlefish.errors import CuttlefishError

SPLITS = {
    "cifar10": {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]},
    "cifar100": {"train": ["train"], "test": ["test"]},
}
LABELS = {"cifar10": "labels", "cifar100": "fine_labels"}


def classes(config: DataConfig) -> int:
    return {"cifar10": 10, "cifar100": 100}[config.kind]


def load(config: DataConfig, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3) uint8 and labels (N,) int64 of "train" or "test", in file order."""
    files = data_files(config)
    batches = [
        _read(files[name], LABELS[config.kind], classes(config)) for name in SPLITS[config.kind][split]
    ]
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return np.ascontiguousarray(images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels


def _read(path: Path, key: str, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (N, 3072), red plane first, and labels of one file."""
    content = read_arrays(path)
    rows, labels = content.get("data"), content.get(key)
    if (
        not isinstance(rows, np.ndarray)
        or rows.ndim != 2
        or rows.shape[1] != 3072
        or not _are_labels(labels, len(rows), classes)
    ):
        raise CuttlefishError(
            f"{path} is not a CIFAR file: it should hold `data` (N x 3072 bytes) and `{key}` (N integers below {classes})"
        )
    return rows, np.array(labels, np.int64)


def _are_labels(labels: object, count: int, classes: int) -> bool:
    return (
        isinstance(labels, list)
        and len(labels) == count
        and all(type(label) is int and 0 <= label < classes for label in labels)
    )
