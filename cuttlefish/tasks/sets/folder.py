"""Images in {train,val}/<class>/ folders: anyone's own, and ImageNet (ILSVRC2012)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cuttlefish.config.schema import Config, DataConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.tasks.files import data_root, digest_of
from cuttlefish.tasks.folder.hub import HubListing, list_hub
from cuttlefish.tasks.folder.listing import SPLITS, Listing, list_images
from cuttlefish.tasks.folder.settings import FolderSettings, HubSettings
from cuttlefish.tasks.registry import DataSet

if TYPE_CHECKING:
    import torch

    from cuttlefish.tasks.base import Task

ARCHIVES = {
    "ILSVRC2012_img_train.tar": "1d675b47d978889d74fa0da5fadfb00e",
    "ILSVRC2012_img_val.tar": "29b22e2961454d5413ddabcf34fc5622",
    "ILSVRC2012_devkit_t12.tar.gz": "fa75699e90414af021442c21a62c3abf",
}
"""ImageNet's archives and their published MD5 sums. The last one has the classes of the second."""
IMAGENET = (1000, 1_281_167, 50_000)
"""ImageNet's numbers of classes, of training and of validation images."""


class ImageFolder(DataSet):
    title = "A folder of images"
    takes = frozenset({"images_per_class", "images_seed", "flip", "mean", "std", "image_size"})
    Settings = FolderSettings

    def root(self, config: DataConfig) -> Path:
        if config.root is None:
            raise CuttlefishError(
                "data=folder needs data.root, the folder that has train/<class>/ and val/<class>/ in it"
            )
        return data_root(config)

    def listing(self, config: DataConfig) -> Listing:
        if config.download:
            raise CuttlefishError(f"data.download=true: {self.title} cannot be downloaded")
        return list_images(self.root(config), self.settings(config).skip_unreadable)

    def digest(self, config: DataConfig) -> str:
        return self.listing(config).digest()

    def is_there(self, config: DataConfig) -> bool:
        return all((self.root(config) / split).is_dir() for split in SPLITS)

    def task(self, config: Config, device: torch.device, dtype: torch.dtype) -> Task:
        from cuttlefish.tasks.folder.task import FolderTask  # imports torch

        data = config.data
        return FolderTask(config, self.settings(data), self.listing(data), self.digest(data), device, dtype)


class ImageNet(ImageFolder):
    """ILSVRC2012, below the data root in `imagenet`; its digest is that of the published archives."""

    title = "ImageNet"

    def root(self, config: DataConfig) -> Path:
        return data_root(config) / "imagenet"

    def listing(self, config: DataConfig) -> Listing:
        found = super().listing(config)
        counts = len(found.classes), len(found.train), len(found.val)
        if config.verify and counts != IMAGENET:
            have, should = (
                "{} classes, {:,} training and {:,} validation images".format(*numbers)
                for numbers in (counts, IMAGENET)
            )
            raise CuttlefishError(
                f"{found.root} is not ImageNet: it has {have}, not {should}; complete it by `python -m "
                "scripts.data imagenet`, or use data=folder for images of your own"
            )
        return found

    def digest(self, config: DataConfig) -> str:
        listing = self.listing(config)
        return digest_of(ARCHIVES) if config.verify else listing.digest()

    def published_digest(self, config: DataConfig) -> str:
        return digest_of(ARCHIVES) if config.verify else self.digest(config)


class HubImages(ImageFolder):
    """`data=hfds data.source=timm/mini-imagenet data.download=true`, or a folder as source."""

    title = "A set of the Hugging Face hub"
    Settings = HubSettings

    def listing(self, config: DataConfig) -> HubListing:
        settings = self.settings(config)
        source = settings.source
        if source is None:
            raise CuttlefishError(
                "data=hfds needs data.source, a repository of images on the hub, or a folder of Parquet files"
            )
        local = Path(source).is_dir()
        if not local and not config.download:
            raise CuttlefishError(
                f"data.source={source} is no folder on this machine; data.download=true reads it from the hub"
            )
        if local and settings.revision is not None:
            raise CuttlefishError(
                f"data.revision={settings.revision} is a commit on the hub, and {source} is a folder; leave "
                "it out"
            )
        return list_hub(settings)

    def is_there(self, config: DataConfig) -> bool:
        return config.download or Path(self.settings(config).source or "").is_dir()

    def task(self, config: Config, device: torch.device, dtype: torch.dtype) -> Task:
        task = super().task(config, device, dtype)
        task.revisions = self.listing(config.data).revisions
        return task


DATA_SETS = {"folder": ImageFolder(), "imagenet": ImageNet(), "hfds": HubImages()}
