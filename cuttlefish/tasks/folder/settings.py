"""The keys of `data` that only image folders have."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from cuttlefish.limits import Checked, Count, Each, Name, Place, Within


@dataclass(frozen=True)
class FolderSettings(Checked):
    """How images are cut, augmented and read; the neutral values neither augment nor mix.

    eval_resize: length of an evaluation image's shorter side before the centre crop; by default 256 for 224.
    interpolation: of both resizes. crop_scale: the area of a random training crop, as fractions of the image;
    its aspect ratio is from 3/4 to 4/3. rand_augment: timm's name of a policy, as rand-m9-mstd0.5-inc1.
    erase: probability with which a random rectangle of an image becomes noise. mixup, cutmix: α of the Beta
    distribution, 0 for none; switch: probability of cutmix where there are both. repeats: how often an epoch
    shows an image, each time augmented anew, and accordingly fewer images (repeated augmentation).
    skip_unreadable: leave out damaged images instead of refusing the folder.
    workers: processes that decode, by default one a core; 0 decodes in the training process.
    """

    eval_resize: Annotated[int | None, Within(1, 10_000)] = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    crop_scale: Annotated[list[float] | None, Count(2), Each(Within(0, 1, "(]"))] = None
    rand_augment: Annotated[str | None, Name()] = None
    erase: Annotated[float, Within(0, 1)] = 0.0
    mixup: Annotated[float, Within(0, 100)] = 0.0
    cutmix: Annotated[float, Within(0, 100)] = 0.0
    switch: Annotated[float, Within(0, 1)] = 0.5
    repeats: Annotated[int, Within(1, 100)] = 1
    skip_unreadable: bool = False
    workers: Annotated[int | None, Within(0, 1024)] = None

    def contradictions(self) -> Iterator[str]:
        if self.crop_scale is not None and self.crop_scale[0] > self.crop_scale[1]:
            yield f"crop_scale must be the smallest and the largest area, not {self.crop_scale}"


@dataclass(frozen=True)
class HubSettings(FolderSettings):
    """Those of an image set of the Hugging Face hub.

    source: its repository there, or a folder of Parquet files or of what `datasets` saved. subset: one of a
    repository with several. revision: commit, tag or branch on the hub; None: the newest.
    """

    source: Annotated[str | None, Place()] = None
    subset: Annotated[str | None, Name()] = None
    train_split: Annotated[str, Name()] = "train"
    val_split: Annotated[str, Name()] = "validation"
    image_column: Annotated[str, Name()] = "image"
    label_column: Annotated[str, Name()] = "label"
    revision: Annotated[str | None, Name()] = None

    def split(self, name: str) -> str:
        """Return what the set calls train or val."""
        return {"train": self.train_split, "val": self.val_split}[name]

    def contradictions(self) -> Iterator[str]:
        yield from super().contradictions()
        if self.skip_unreadable:
            yield "skip_unreadable is of data=folder; the rows of data=hfds are first read in training"
