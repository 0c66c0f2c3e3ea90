"""List an image set of the Hugging Face hub, or one that was saved like those, read by `datasets`."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cuttlefish.config.suggest import choose_from
from cuttlefish.errors import CuttlefishError
from cuttlefish.tasks.folder.listing import SMALL, Split
from cuttlefish.tasks.folder.settings import HubSettings
from cuttlefish.tasks.hub import datasets_library, hub_commit

SAVED = "dataset_dict.json"
"""A file of what `DatasetDict.save_to_disk` writes."""


@dataclass(frozen=True)
class InRow:
    """The image in a row of a set, which reads like a file. title: what messages call it."""

    row: dict[str, Any]
    title: str

    def __str__(self) -> str:
        return self.title

    def read_bytes(self) -> bytes:
        content, path = self.row["bytes"], self.row["path"]
        return content if content is not None else Path(path).read_bytes()


@dataclass(frozen=True)
class HubListing:
    """What a set holds.

    Attributes:
        rows: The `datasets.Dataset` of train and val.
        classes: Their names, in the order of their numbers.
        revisions: The repository, and the commit it was read at.
    """

    settings: HubSettings
    rows: dict[str, Any]
    classes: tuple[str, ...]
    train: Split
    val: Split
    revisions: dict[str, str]

    def source(self, split: str, file: int) -> InRow:
        """Return the image in a row."""
        row = self.rows[split][int(file)][self.settings.image_column]
        return InRow(row, f"row {file} of {self.settings.source}, {self.settings.split(split)}")

    def digest(self) -> str:
        """Return the SHA-256 of classes, labels and sizes, and of the content of a small set."""
        splits = {"train": self.train, "val": self.val}
        found = hashlib.sha256("\n".join(self.classes).encode())
        for split in splits.values():
            found.update(split.labels.tobytes() + b"|" + split.sizes.tobytes() + b"|")
        if sum(int(split.sizes.sum()) for split in splits.values()) <= SMALL:
            for name, split in splits.items():
                for file in split.files:
                    found.update(self.source(name, file).read_bytes())
        return found.hexdigest()


def list_hub(settings: HubSettings) -> HubListing:
    """Return the images of `settings.source`, a repository on the hub or a folder.

    Raises:
        CuttlefishError: The set or a split or column of it is not there, or rows have no label.
    """
    files = Path(settings.source).rglob("*") if Path(settings.source).is_dir() else ()
    return _listed(
        replace(settings, crop_scale=None), max((path.stat().st_mtime_ns for path in files), default=0)
    )


@lru_cache(maxsize=2)
def _listed(settings: HubSettings, state: int) -> HubListing:
    """List a set once for its digest and its task; `state` tells a changed folder."""
    source = settings.source
    rows = {name: _read(source, settings, settings.split(name)) for name in ("train", "val")}
    for name in rows:
        _check_columns(rows[name], settings)
    classes, labels = _labels(rows, settings)
    sizes = {name: _sizes(rows[name], settings.image_column) for name in rows}
    train, val = (Split(np.arange(len(labels[name])), sizes[name], labels[name]) for name in rows)
    commit = {} if Path(source).is_dir() else hub_commit(source, rows["train"])
    return HubListing(settings, rows, classes, train, val, commit)


def _read(source: str, settings: HubSettings, split: str) -> Any:
    library = datasets_library("data=hfds reads images", "take data=folder")
    try:
        if (Path(source) / SAVED).is_file():
            whole = library.load_from_disk(source)
            if split not in whole:
                raise CuttlefishError(f"{source} has no split {split}{choose_from(split, whole)}")
            return whole[split].cast_column(settings.image_column, library.Image(decode=False))
        library.disable_progress_bars()
        rows = library.load_dataset(source, settings.subset, split=split, revision=settings.revision)
        return rows.cast_column(settings.image_column, library.Image(decode=False))
    except CuttlefishError:
        raise
    except Exception as error:  # its readers raise all kinds of errors
        reason = " ".join(str(error).split())[:200]
        raise CuttlefishError(
            f"{source}, split {split}, could not be read as images by datasets ({reason}): check "
            "data.source, data.train_split, data.val_split and data.image_column"
        ) from error


def _check_columns(rows: Any, settings: HubSettings) -> None:
    for column in (settings.image_column, settings.label_column):
        if column not in rows.column_names:
            raise CuttlefishError(
                f"{settings.source} has no column {column}{choose_from(column, rows.column_names)}"
            )


def _labels(rows: dict[str, Any], settings: HubSettings) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Return the classes' names, and each split's labels: their numbers, (N,) int64."""
    column = settings.label_column
    found = {name: np.asarray(_column(own, column)) for name, own in rows.items()}
    names = [getattr(own.features[column], "names", None) for own in rows.values()]
    if all(names) and names[0] == names[1]:
        classes: Sequence[str] = names[0]
        labels = {name: values.astype(np.int64) for name, values in found.items()}
    else:
        values, numbers = np.unique(np.concatenate(list(found.values())), return_inverse=True)
        classes = [str(value) for value in values]
        labels = dict(zip(found, np.split(numbers, [len(found["train"])]), strict=True))
    for name, own in labels.items():
        counts = np.bincount(own[own >= 0], minlength=len(classes))
        empty = name == "train" and not counts.all()
        if (own < 0).any() or len(classes) < 2 or empty:
            what = "rows without a class" if (own < 0).any() else "a class without images" if empty else ""
            raise CuttlefishError(
                f"{settings.source}, split {settings.split(name)}, has {what or 'fewer than two classes'} in "
                f"column {column}; data.label_column names the column of classes"
            )
    return tuple(classes), labels


def _sizes(rows: Any, column: str) -> np.ndarray:
    """Return (N,) bytes of the images."""
    import pyarrow.compute as arrow

    images = _column(rows, column)
    sizes = arrow.binary_length(arrow.struct_field(images, "bytes")).to_numpy(zero_copy_only=False)
    if not np.isnan(sizes.astype(float)).any():
        return sizes.astype(np.int64)
    paths = arrow.struct_field(images, "path").to_pylist()
    return np.array([os.path.getsize(path) for path in paths], np.int64)


def _column(rows: Any, name: str) -> Any:
    """Return a column as an array of Arrow's, without decoding."""
    return rows.with_format("arrow")[:][name]
