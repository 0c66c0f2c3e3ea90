"""Decode, crop, resize and augment one image; random choices are a function of one integer a sample."""

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from cuttlefish.errors import CuttlefishError

RATIO = (3 / 4, 4 / 3)
"""Least and greatest aspect ratio of a random crop."""
ATTEMPTS = 10
Box = tuple[int, int, int, int]
"""top, left, height, width"""


class Source(Protocol):
    """An image file: a `Path`, or one inside of another file."""

    def read_bytes(self) -> bytes: ...


def decoded(path: str | Source, box_of: Callable[[int, int], Box] | None = None, size: int = 0) -> Tensor:
    """Return an image as (3, H, W) uint8, greyscale and CMYK files as RGB.

    Args:
        box_of: Chooses the part to return from the image's height and width; by default all.
        size: The length to which that part's sides will be reduced: where it is at least twice that long, a
            JPEG is decoded at a half, a quarter or an eighth of its resolution at once.

    Raises:
        CuttlefishError: The file cannot be read or is damaged.
    """
    try:
        content = (Path(path) if isinstance(path, str) else path).read_bytes()
        with Image.open(BytesIO(content)) as header:
            width, height = header.size
            top, left, high, wide = box_of(height, width) if box_of else (0, 0, height, width)
            if size and min(high, wide) >= 2 * size and header.format == "JPEG":
                header.draft("RGB", (width * size // wide, height * size // high))
                return _part(header, (top, left, high, wide), (height, width))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            pixels = decode_image(torch.frombuffer(content, dtype=torch.uint8), ImageReadMode.RGB)
        pixels = pixels if pixels.ndim == 3 else pixels[0]  # the first frame of an animation
        pixels = F.to_dtype(pixels, torch.uint8, scale=True)  # a PNG may have 16 bits a channel
        return pixels[:, top : top + high, left : left + wide]
    except (OSError, RuntimeError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).split("\n")[0].rpartition("cpp:")[2] or type(error).__name__
        raise CuttlefishError(f"{path} is no image that can be read ({reason})") from error


def _part(image: Image.Image, box: Box, original: tuple[int, int]) -> Tensor:
    """Return a part, given in pixels of the original size, of a JPEG opened at a lower resolution."""
    down, right = image.height / original[0], image.width / original[1]
    top, left, high, wide = box
    corners = (left * right, top * down, (left + wide) * right, (top + high) * down)
    cut = image.convert("RGB").crop(tuple(map(round, corners)))
    return torch.from_numpy(np.array(cut)).permute(2, 0, 1)


@dataclass(frozen=True)
class Evaluated:
    """The centre crop of an image whose shorter side was resized: (size, size, 3) uint8."""

    size: int
    resize: int
    interpolation: str

    def __call__(self, path: str | Source, word: int) -> Tensor:
        pixels = decoded(path, size=self.resize)
        pixels = F.resize(pixels, [self.resize], InterpolationMode(self.interpolation), antialias=True)
        return F.center_crop(pixels, [self.size]).permute(1, 2, 0).contiguous()


@dataclass(frozen=True)
class Augmented:
    """A random crop of an image, resized, flipped with probability 1/2, and changed: (size, size, 3) uint8.

    scale: least and greatest area of the crop; None for all of the image. policy: timm's RandAugment, which
    draws from the global generators.
    """

    size: int
    scale: tuple[float, float] | None
    flip: bool
    interpolation: str
    policy: Any = field(default=None)

    def __call__(self, path: str | Source, word: int) -> Tensor:
        with seeded(word, numpy=self.policy is not None):
            pixels = decoded(path, self._box, self.size)
            pixels = F.resize(
                pixels, [self.size, self.size], InterpolationMode(self.interpolation), antialias=True
            )
            if self.flip and random.random() < 0.5:
                pixels = pixels.flip(-1)
            pixels = pixels.permute(1, 2, 0).contiguous()
            if self.policy is None:
                return pixels
            return torch.from_numpy(np.array(self.policy(Image.fromarray(pixels.numpy()))))

    def _box(self, height: int, width: int) -> Box:
        """Draw the part of Inception's random crop; all of the image, or a centred part, where none fits."""
        if self.scale is None:
            return 0, 0, height, width
        for _ in range(ATTEMPTS):
            area = random.uniform(*self.scale) * height * width
            ratio = np.exp(random.uniform(*np.log(RATIO)))
            wide, high = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
            if 0 < wide <= width and 0 < high <= height:
                return random.randint(0, height - high), random.randint(0, width - wide), high, wide
        wide = min(width, round(height * RATIO[1]))
        high = min(height, round(width / RATIO[0]))
        return (height - high) // 2, (width - wide) // 2, high, wide


def rand_augment(name: str, size: int, mean: list[float], interpolation: str) -> Any:
    """Return timm's RandAugment policy. Raises CuttlefishError for a name that timm does not know."""
    from timm.data.auto_augment import rand_augment_transform

    fill = tuple(min(255, round(255 * channel)) for channel in mean)
    resample = Image.Resampling[interpolation.upper()]
    options = {"translate_const": int(size * 0.45), "img_mean": fill, "interpolation": resample}
    try:
        policy = rand_augment_transform(name, options)
        for op in policy.ops:
            op.aug_fn = _posterised if op.name.startswith("Posterize") else op.aug_fn
        return policy
    except (AssertionError, ValueError, KeyError, IndexError) as error:
        raise CuttlefishError(
            f"data.rand_augment={name} is no policy of timm's; one is rand-m9-mstd0.5-inc1"
        ) from error


def _posterised(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """Keep the highest bits of every channel. timm asks for none at times, which Pillow 13's refuses."""
    return image.point(
        [value & ~(2 ** (8 - min(bits, 8)) - 1) for value in range(256)] * len(image.getbands())
    )


@contextmanager
def seeded(word: int, numpy: bool = True) -> Iterator[None]:
    """Seed Python's (and NumPy's) global generator inside, and put back its state after."""
    state, others = random.getstate(), np.random.get_state() if numpy else None
    random.seed(word)
    if numpy:
        np.random.seed(word % 2**32)
    try:
        yield
    finally:
        random.setstate(state)
        if numpy:
            np.random.set_state(others)
