"""A data set stored as bytes on the training device, where batches are cropped, flipped and normalised.

Every crop of every image is a strided view of the padded set, so a batch is one gather of contiguous rows.
The flipped set is stored too, so that flipping is part of the same gather, without synchronisation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cuttlefish.tasks.base import Batch
from cuttlefish.tasks.randomness import below, random_integers

TRAINING, SAMPLES, EXAMPLE = range(3)
ORDER, AUGMENTATION = range(2)


@dataclass(frozen=True)
class _Crops:
    """Crops in order: image index, offsets in the padded image, whether flipped; each (N,)."""

    index: Tensor
    dy: Tensor
    dx: Tensor
    mirrored: Tensor

    def __getitem__(self, part: slice) -> _Crops:
        return _Crops(self.index[part], self.dy[part], self.dx[part], self.mirrored[part])


class ResidentImages:
    """Images and labels on a device. Memory: N (H + 2 padding) (W + 2 padding) C bytes, twice that with flip.

    Args:
        images: (N, H, W, C) uint8.
        labels: (N,) int64.
        mean, std: One number per channel, for pixels in [0, 1].
        crop_padding: Black pixels around a training image before cropping, as in torchvision's
            RandomCrop(padding=...) before ToTensor and Normalize.
        flip: Flip training images horizontally with probability 1/2.
        dtype: Type of the batches' images, which are computed in float32, or in float64 for that type: a
            rounding that differs between devices grows a thousandfold within a few steps.
        channels_last: Memory format of the batches' images. The data is stored in it; False copies each
            batch.
    """

    def __init__(
        self,
        images: np.ndarray | Tensor,
        labels: np.ndarray | Tensor,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        crop_padding: int = 0,
        flip: bool = False,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        channels_last: bool = True,
    ):
        images = torch.as_tensor(images).to(device)
        self.labels = torch.as_tensor(labels).to(device)
        self.crop_padding, self.flip = crop_padding, flip
        self.device, self.dtype, self.channels_last = images.device, dtype, channels_last
        _, height, width, channels = images.shape
        self.input_shape = (channels, height, width)
        self._computed = torch.promote_types(torch.float32, dtype)
        self._row_mean, self._row_std = (
            torch.tensor(values, device=device, dtype=self._computed).repeat(width) for values in (mean, std)
        )
        self._crops = _all_crops(images, crop_padding, flip)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def images(self) -> Tensor:
        """Return a copy of the images, (N, H, W, C) uint8."""
        return self._gather(self._plain(self._all_indices()))

    def batches(
        self,
        batch_size: int,
        *,
        seed: int = 0,
        epoch: int = 0,
        train: bool,
        first: int = 0,
        process: int = 0,
        processes: int = 1,
    ) -> Iterator[Batch]:
        """Yield this process's contiguous share of each global batch of one epoch.

        The last batch may be smaller and a share may be empty: all processes take the same number of steps.

        Args:
            batch_size: Size of the global batch.
            train: Shuffle and augment, as a function of (seed, epoch, image index) only; otherwise yield the
                images in order, unchanged.
            first: Index of the batch to begin with.
        """
        crops = self._drawn(TRAINING, seed, epoch) if train else self._plain(self._all_indices())
        for start in range(first * batch_size, len(self), batch_size):
            size = min(batch_size, len(self) - start)
            share = slice(start + size * process // processes, start + size * (process + 1) // processes)
            yield replace(self._show(crops[share], size), first=share.start - start)

    def samples(self, batch_size: int, seed: int, order: int = 0) -> Iterator[Batch]:
        """Yield augmented batches without end, the same on all processes and for any training order.

        Args:
            order: Number of the shuffled order of the set to begin with.
        """
        for epoch in count(order):
            crops = self._drawn(SAMPLES, seed, epoch)
            for start in range(0, len(self), batch_size):
                yield self._show(crops[start : start + batch_size])

    def example(self, batch_size: int) -> Batch:
        """Return always the same `batch_size` (or all) images, not augmented."""
        return self._show(self._plain(self._shuffled(EXAMPLE)[:batch_size]))

    def _all_indices(self) -> Tensor:
        return torch.arange(len(self), device=self.device)

    def _drawn(self, stream: int, seed: int, epoch: int) -> _Crops:
        index = self._shuffled(stream, seed, epoch)
        integers = random_integers((stream, AUGMENTATION, seed, epoch), len(self), self.device)[index]
        offsets = 2 * self.crop_padding + 1
        mirrored = below(2, integers, 40) if self.flip else torch.zeros_like(index)
        return _Crops(index, below(offsets, integers, 0), below(offsets, integers, 20), mirrored)

    def _shuffled(self, stream: int, *key: int) -> Tensor:
        return random_integers((stream, ORDER, *key), len(self), self.device).argsort(stable=True)

    def _plain(self, index: Tensor) -> _Crops:
        centre = torch.full_like(index, self.crop_padding)
        return _Crops(index, centre, centre, torch.zeros_like(index))

    def _show(self, crops: _Crops, global_size: int | None = None) -> Batch:
        channels, height, width = self.input_shape
        rows = self._gather(crops).view(-1, height, width * channels).to(self._computed)
        # The operations of ToTensor and Normalize, for bit-identical results.
        rows.div_(255).sub_(self._row_mean).div_(self._row_std)
        images = rows.view(-1, height, width, channels).permute(0, 3, 1, 2).to(self.dtype)
        images = images if self.channels_last else images.contiguous()
        labels = self.labels[crops.index]
        return Batch(images, labels, len(labels) if global_size is None else global_size)

    def _gather(self, crops: _Crops) -> Tensor:
        """Return (B, H, W, C) uint8. In the flipped set offsets count from the other side."""
        channels, height, width = self.input_shape
        dx = torch.where(crops.mirrored.bool(), 2 * self.crop_padding - crops.dx, crops.dx)
        return self._crops[crops.index + len(self) * crops.mirrored, crops.dy, dx].view(
            -1, height, width, channels
        )


def _all_crops(images: Tensor, padding: int, flip: bool) -> Tensor:
    """Return a view (N or 2N, dy, dx, H, W·C) of all crops of the padded, then the flipped images."""
    number, height, width, channels = images.shape
    padded = F.pad(images, (0, 0, padding, padding, padding, padding))
    padded = (torch.cat([padded, padded.flip(2)]) if flip else padded).contiguous()
    image, row, pixel, _ = padded.stride()
    offsets = 2 * padding + 1
    return padded.as_strided(
        (len(padded), offsets, offsets, height, width * channels), (image, row, pixel, row, 1)
    )
