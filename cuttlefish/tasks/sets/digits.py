"""Scikit-learn's 1,797 handwritten 8×8 digits, enlarged: a real data set without a download."""

import gzip
import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from cuttlefish.config.schema import DataConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.tasks.image_set import Arrays, ImageSet
from cuttlefish.tasks.split import stratified

IMAGE_SIZE = 16
SIDE = 8
HIGHEST = 16
"""Highest grey level of the original images."""


def content(config: DataConfig) -> dict[str, object]:
    return {"digits.csv": hashlib.sha256(_table()).hexdigest(), "image_size": config.image_size or IMAGE_SIZE}


def load(config: DataConfig, split: str) -> Arrays:
    """Return images (N, S, S, 3) with three equal channels, S = `data.image_size` (16), and labels.

    A fixed half of each class is the test split.
    """
    rows = np.loadtxt(_table().decode().splitlines(), delimiter=",", dtype=np.int64)
    labels = rows[:, -1]
    train, test = stratified(labels, 1 / 2)
    chosen = {"train": train, "test": test}[split]
    levels = rows[chosen, :-1].reshape(-1, SIDE, SIDE) * (255 / HIGHEST)
    grey = enlarge(levels, config.image_size or IMAGE_SIZE)
    return np.repeat(grey[..., None], 3, axis=-1), labels[chosen]


def enlarge(images: np.ndarray, size: int) -> np.ndarray:
    """Resample (N, S, S) bilinearly to (N, size, size), half-pixel centres, rounded to uint8."""
    weights = _bilinear(images.shape[-1], size)
    return np.rint(weights @ images @ weights.T).astype(np.uint8)


def _bilinear(source: int, size: int) -> np.ndarray:
    """Return the (size, source) matrix of interpolation weights along one axis."""
    centres = ((np.arange(size) + 0.5) * source / size - 0.5).clip(0, source - 1)
    return (1 - np.abs(centres[:, None] - np.arange(source))).clip(0)


def _table() -> bytes:
    """Read the installed package's file directly, because importing scikit-learn takes seconds."""
    package = find_spec("sklearn")
    if package and package.origin:
        path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return gzip.decompress(path.read_bytes())
    raise CuttlefishError(
        "data=digits reads the digits that scikit-learn brings, which is not installed: install scikit-learn"
    )


DATA_SETS = {
    "digits": ImageSet("Digits", classes=lambda config: 10, load=load, content=content, own=("image_size",))
}
