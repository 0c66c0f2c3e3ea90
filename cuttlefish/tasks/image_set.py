"""Image sets that fit into memory, as kinds of data. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cuttlefish.config.schema import Config, DataConfig
from cuttlefish.tasks.files import digest_of, files_digest, files_there
from cuttlefish.tasks.registry import DataSet, FileSet

if TYPE_CHECKING:
    import torch

    from cuttlefish.tasks.images import ImageTask

Arrays = tuple[np.ndarray, np.ndarray]
"""Images (N, H, W, C) uint8 and labels (N,) int64, in file order."""

FOR_IMAGES = frozenset({"images_per_class", "images_seed", "crop_padding", "flip", "mean", "std"})
"""Fields of `DataConfig` that apply to all image sets."""


@dataclass(frozen=True)
class ImageSet(DataSet):
    """Images in memory.

    Attributes:
        title: Name for messages.
        classes: Returns the number of classes for a config.
        load: Returns images and labels of the split "train" or "test".
        files: Its files, whose checksums determine its digest.
        content: For a set without files, the named values that determine its images and digest.
        own: Fields of `DataConfig` specific to this set.
    """

    title: str
    classes: Callable[[DataConfig], int]
    load: Callable[[DataConfig, str], Arrays]
    files: FileSet | None = None
    content: Callable[[DataConfig], Mapping[str, object]] | None = None
    own: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.files is None) == (self.content is None):
            raise ValueError(
                f"{self.title} must have either files or content, which make its digest in the run key"
            )

    @property
    def takes(self) -> frozenset[str]:
        return FOR_IMAGES | set(self.own)

    def digest(self, config: DataConfig) -> str:
        return files_digest(config) if self.files else digest_of(self.content(config))

    def published_digest(self, config: DataConfig) -> str:
        return digest_of(self.files.md5) if self.files and config.verify else self.digest(config)

    def is_there(self, config: DataConfig) -> bool:
        return self.files is None or files_there(config, self.files)

    def task(self, config: Config, device: torch.device, dtype: torch.dtype) -> ImageTask:
        from cuttlefish.tasks.images import load_images  # imports torch

        return load_images(self, config.data, device, dtype, config.trainer.channels_last)
