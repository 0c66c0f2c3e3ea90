"""Fetching the public data sets, through torchvision (which checks the archives' checksums)."""

from pathlib import Path

from cuttlefish.data.published import FILE_SETS
from cuttlefish.errors import CuttlefishError


def download(kind: str, root: Path) -> None:
    """Put the files of data set `kind` below `root`. Raises CuttlefishError if the network or the disk refuses."""
    try:
        _fetch(kind, root)
    except (OSError, RuntimeError, ImportError) as error:
        raise CuttlefishError(
            f"Downloading {FILE_SETS[kind].title} into {root} failed ({error}): try again with a network, "
            "or copy the files there and set data.download=false"
        ) from error


def _fetch(kind: str, root: Path) -> None:
    from torchvision import datasets

    if kind == "svhn":
        for split in ("train", "test"):
            datasets.SVHN(root, split=split, download=True)
    else:
        {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[kind](root, train=False, download=True)
