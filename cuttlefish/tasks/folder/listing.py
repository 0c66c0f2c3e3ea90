"""List a folder {train,val}/<class>/ of images, check it, and compute its digest. Needs no torch."""

import hashlib
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from cuttlefish.errors import CuttlefishError
from cuttlefish.tasks.folder.damage import damaged

logger = logging.getLogger("cuttlefish")
SPLITS = ("train", "val")
ENDINGS = (".jpeg", ".jpg", ".png", ".webp", ".gif")
SMALL = 64 * 2**20
"""Bytes up to which a folder's digest is of its files' content, too; beyond it of names and sizes."""
SHOWN = 5
"""The most damaged images that a message names."""


@dataclass(frozen=True)
class Split:
    """The images of a split, ordered by class and name.

    Attributes:
        files: (N,) paths relative to the root, as bytes; of a set on the hub the numbers of its rows.
        sizes, labels: (N,) bytes and class numbers, int64.
    """

    files: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> "Split":
        return Split(self.files[chosen], self.sizes[chosen], self.labels[chosen])

    def __len__(self) -> int:
        return len(self.files)


@dataclass(frozen=True)
class Listing:
    """What a folder holds. classes: their names, in the order of their numbers."""

    root: Path
    classes: tuple[str, ...]
    train: Split
    val: Split

    def source(self, split: str, file: bytes) -> Path:
        """Return where an image of a split is."""
        return self.root / os.fsdecode(file)

    def digest(self) -> str:
        """Return the SHA-256 of all names and sizes, and of the content of a small folder."""
        found = hashlib.sha256()
        content = sum(int(split.sizes.sum()) for split in (self.train, self.val)) <= SMALL
        for split in (self.train, self.val):
            for file, size in zip(split.files, split.sizes, strict=True):
                found.update(file + b" %d\n" % size)
                if content:
                    found.update((self.root / os.fsdecode(file)).read_bytes())
        return found.hexdigest()


def list_images(root: Path, skip_damaged: bool = False) -> Listing:
    """Return the images of {train,val}/<class>/ below `root`; classes are numbered by name.

    The first and the last bytes of every file are read: one that does not look whole is decoded.

    Args:
        skip_damaged: Leave out damaged images, with a warning.

    Raises:
        CuttlefishError: The folder has another structure, a class is empty or in one split only, or images
            are damaged.
    """
    return _listed(root, skip_damaged, _state(root))


@lru_cache(maxsize=4)
def _listed(root: Path, skip_damaged: bool, state: tuple[tuple[str, int], ...]) -> Listing:
    """List a folder once for its digest and its task; `state` tells a changed folder."""
    classes = {split: _classes(root, split) for split in SPLITS}
    _check_alike(root, *classes.values())
    train, val = (_split(root, split, classes[split]) for split in SPLITS)
    whole = {split: _whole(root, listed) for split, listed in zip(SPLITS, (train, val), strict=True)}
    broken = [
        file for split, kept in zip((train, val), whole.values(), strict=True) for file in split.files[~kept]
    ]
    if broken:
        _report([os.fsdecode(file) for file in broken], root, skip_damaged)
    train, val = train[whole["train"]], val[whole["val"]]
    for split, listed in zip(SPLITS, (train, val), strict=True):
        _check_filled(root / split, listed, classes[split])
    return Listing(root, tuple(classes["train"]), train, val)


def _state(root: Path) -> tuple[tuple[str, int], ...]:
    folders = [root / split / name for split in SPLITS for name in _classes(root, split)]
    return tuple((str(folder), folder.stat().st_mtime_ns) for folder in folders)


def _classes(root: Path, split: str) -> list[str]:
    try:
        entries = sorted(os.scandir(root / split), key=lambda entry: entry.name)
        names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except FileNotFoundError:
        raise CuttlefishError(
            f"there is no folder {root / split}: images must lie in {root}/{{train,val}}/<class>/, "
            "one folder a class; data.root says where"
        ) from None
    except OSError as error:
        raise CuttlefishError(f"cannot read {root / split}: {error.strerror}") from error
    if len(names) < 2:
        what = (
            "images without class folders" if any(map(_is_image, entries)) else f"{len(names)} class folders"
        )
        raise CuttlefishError(
            f"{root / split} has {what}: images must lie in {root}/{{train,val}}/<class>/, two or more"
        )
    return names


def _check_alike(root: Path, train: list[str], val: list[str]) -> None:
    only = {"train": sorted(set(train) - set(val)), "val": sorted(set(val) - set(train))}
    for split, names in only.items():
        if names:
            others = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise CuttlefishError(
                f"{root} has {len(train)} classes in train and {len(val)} in val: {names[0]}{others} is in "
                f"{split} only, and both must have the same class folders"
            )


def _split(root: Path, split: str, classes: list[str]) -> Split:
    rows = [
        (os.fsencode(f"{split}/{name}/{file}"), size, label)
        for label, name in enumerate(classes)
        for file, size in sorted(_images(root / split / name))
    ]
    files, sizes, labels = zip(*rows, strict=True) if rows else ((), (), ())
    return Split(np.array(files, np.bytes_), np.array(sizes, np.int64), np.array(labels, np.int64))


def _images(folder: Path) -> Iterator[tuple[str, int]]:
    try:
        for entry in os.scandir(folder):
            if _is_image(entry):
                yield entry.name, entry.stat().st_size
    except OSError as error:
        raise CuttlefishError(f"cannot read {folder}: {error.strerror}") from error


def _is_image(entry: os.DirEntry) -> bool:
    return entry.name.lower().endswith(ENDINGS) and not entry.name.startswith(".") and entry.is_file()


def _whole(root: Path, split: Split) -> np.ndarray:
    """Return (N,) whether each image is whole, as far as a look at both ends can tell."""
    with ThreadPoolExecutor(16) as pool:
        paths = (str(root / os.fsdecode(file)) for file in split.files)
        return ~np.fromiter(pool.map(damaged, paths), bool, len(split))


def _report(broken: list[str], root: Path, skip: bool) -> None:
    """Warn about damaged images that are left out, or raise."""
    more = f" and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
    told = f"{len(broken)} damaged or unreadable images in {root}: {', '.join(broken[:SHOWN])}{more}"
    if not skip:
        raise CuttlefishError(f"{told}; replace them, or leave them out by data.skip_unreadable=true")
    logger.warning("%s are left out", told)


def _check_filled(folder: Path, listed: Split, classes: list[str]) -> None:
    counts = np.bincount(listed.labels, minlength=len(classes))
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if empty:
        others = f" (and {len(empty) - 1} more)" if len(empty) > 1 else ""
        raise CuttlefishError(
            f"class {empty[0]}{others} has no images in {folder}: a class needs at least one, ending in "
            f"{', '.join(ENDINGS)}"
        )
