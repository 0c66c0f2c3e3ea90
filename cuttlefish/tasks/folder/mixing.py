"""What is done to a batch on the device: normalisation, random erasing, mixup and cutmix."""

import random
from collections.abc import Sequence
from math import exp, log, sqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from cuttlefish.tasks.folder.images import seeded

AREA = (0.02, 1 / 3)
"""Least and greatest area of an erased rectangle, as fractions of the image."""
ASPECT = 0.3
"""Least aspect ratio of it; the greatest is its inverse."""
ATTEMPTS = 10


class Normalised:
    """Turns (B, H, W, 3) uint8 into (B, 3, H, W), normalised, in the memory format channels_last."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device, dtype: torch.dtype):
        self.dtype = dtype
        self.mean, self.std = (255 * torch.tensor(values, device=device) for values in (mean, std))

    def __call__(self, pixels: Tensor) -> Tensor:
        width = pixels.shape[2]
        rows = pixels.flatten(2).to(torch.float32)  # whole rows at once: three channels are no vector
        rows.sub_(self.mean.repeat(width)).div_(self.std.repeat(width))
        return rows.view(pixels.shape).permute(0, 3, 1, 2).to(self.dtype)


def erase(images: Tensor, words: Sequence[int], probability: float) -> None:
    """Fill a random rectangle of some images with Gaussian noise, in place (Zhong et al., 2020).

    Args:
        images: (B, 3, H, W), normalised.
        words: (B,) integers, each of which alone decides what happens to its image.
    """
    noise = torch.Generator(images.device)
    for image, word in zip(images, words, strict=True):
        draw = random.Random(word)
        if draw.random() < probability and (box := _rectangle(draw, *image.shape[1:])):
            top, left, high, wide = box
            noise.manual_seed(word % 2**63)
            image[:, top : top + high, left : left + wide].normal_(generator=noise)


def _rectangle(draw: random.Random, height: int, width: int) -> tuple[int, int, int, int] | None:
    for _ in range(ATTEMPTS):
        area = draw.uniform(*AREA) * height * width
        aspect = exp(draw.uniform(log(ASPECT), -log(ASPECT)))
        high, wide = round(sqrt(area * aspect)), round(sqrt(area / aspect))
        if 0 < high < height and 0 < wide < width:
            return draw.randint(0, height - high), draw.randint(0, width - wide), high, wide
    return None


class Mixed:
    """Mixes the images of pairs, and their labels, by timm's Mixup: one λ a global batch.

    A pair is two neighbours of the global batch, so that it does not matter how many processes share one; of
    an odd share the last image stays as it is.
    """

    def __init__(self, mixup: float, cutmix: float, switch: float, classes: int):
        from timm.data.mixup import Mixup

        self.classes = classes
        self.mix: Any = Mixup(
            mixup, cutmix, switch_prob=switch, mode="batch", label_smoothing=0.0, num_classes=classes
        )

    def __call__(self, images: Tensor, labels: Tensor, word: int) -> tuple[Tensor, Tensor]:
        """Return mixed images and (B, classes) shares of the classes. word: that of the global batch."""
        targets = one_hot(labels, self.classes).to(torch.float32)
        even = len(images) - len(images) % 2
        if even:
            # timm mixes image i with image B - 1 - i: put the pairs there.
            order = [*range(0, even, 2), *range(even - 1, 0, -2)]
            images[:even] = images[order]
            targets[:even] = targets[order]
            with seeded(word):
                images[:even], targets[:even] = self.mix(images[:even], labels[order])
        return images, targets
