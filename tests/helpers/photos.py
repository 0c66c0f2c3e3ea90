"""Little class folders of generated JPEG files."""

from pathlib import Path

import numpy as np
from PIL import Image


def photo(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """Return a smooth RGB image of a width and height, which JPEG keeps well."""
    grid = np.random.RandomState(seed).randint(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC)


def write_photos(root: Path, classes: int = 3, train: int = 4, val: int = 2) -> Path:
    """Write {train,val}/<class>/*.JPEG; one image in each class is greyscale, one in each split CMYK."""
    for split, count in (("train", train), ("val", val)):
        for label in range(classes):
            folder = root / split / f"n{label:04d}"
            folder.mkdir(parents=True)
            for number in range(count):
                image = photo(1000 * label + number + 500 * (split == "val"), (40 + 3 * number, 30 + label))
                mode = "L" if number == 1 else "CMYK" if (label, number) == (0, 0) else "RGB"
                image.convert(mode).save(folder / f"{label}_{number}.JPEG", quality=95)
    return root
