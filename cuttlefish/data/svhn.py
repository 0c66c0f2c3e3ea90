"""SVHN's cropped digits (Netzer et al., 2011): the train split without the extra one, and the test split."""

from pathlib import Path

import numpy as np

from cuttlefish.config.schema import DataConfig
from cuttlefish.data.files import data_files
from cuttlefish.errors import CuttlefishError


def classes(config: DataConfig) -> int:
    return 10


def load(config: DataConfig, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3) uint8 and labels (N,) int64 of "train" or "test"; label 0 is the digit 0 (10 in the file)."""
    images, labels = _read(data_files(config)[f"{split}_32x32.mat"])
    return np.ascontiguousarray(images.transpose(3, 0, 1, 2)), labels.astype(np.int64).ravel() % 10


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=("X", "y"))
        images, labels = content["X"], content["y"]
    except Exception as error:  # the reader raises what it likes on a broken file
        raise CuttlefishError(f"{path} is not an SVHN file ({error}): replace it by the original") from error
    are_images = images.dtype == np.uint8 and images.ndim == 4 and images.shape[:3] == (32, 32, 3)
    if not are_images or labels.size != images.shape[3] or not np.isin(labels, range(1, 11)).all():
        raise CuttlefishError(
            f"{path} is not an SVHN file: it should hold X (32 x 32 x 3 x N bytes) and y (N digits from 1 to 10)"
        )
    return images, labels
