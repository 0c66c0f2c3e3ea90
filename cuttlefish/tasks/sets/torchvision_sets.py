"""CIFAR-10, CIFAR-100 (Krizhevsky, 2009) and SVHN (Netzer et al., 2011), through torchvision's classes.

SVHN uses the splits train (without extra) and test.
"""

from pathlib import Path
from typing import Any

import numpy as np

from cuttlefish.config.schema import DataConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.tasks.files import data_folder
from cuttlefish.tasks.image_set import Arrays, ImageSet
from cuttlefish.tasks.registry import FileSet


def _load_cifar(config: DataConfig, split: str) -> Arrays:
    folder = data_folder(config)
    data = _torchvision_class(config.kind)(folder.parent, train=split == "train")
    return np.ascontiguousarray(data.data), np.array(data.targets, np.int64)


def _load_svhn(config: DataConfig, split: str) -> Arrays:
    folder = data_folder(config)
    reader = _torchvision_class("svhn")
    if not config.verify:
        unchecked = {name: [url, file, None] for name, (url, file, _) in reader.split_list.items()}
        reader = type("SVHN", (reader,), {"split_list": unchecked})
    path = folder / f"{split}_32x32.mat"
    try:
        data = reader(folder, split)
    except Exception as error:  # SciPy's reader can raise anything on a broken file
        raise CuttlefishError(f"{path} is not an SVHN file ({error}): replace it by the original") from error
    images, labels = data.data.transpose(0, 2, 3, 1), np.atleast_1d(data.labels)
    are_images = images.dtype == np.uint8 and images.shape[1:] == (32, 32, 3)
    if not are_images or labels.shape != images.shape[:1] or not np.isin(labels, range(10)).all():
        raise CuttlefishError(
            f"{path} is not an SVHN file: it should hold X (32 x 32 x 3 x N bytes) and "
            "y (N digits from 1 to 10)"
        )
    return np.ascontiguousarray(images), labels


def _download_cifar(kind: str, root: Path) -> None:
    _torchvision_class(kind)(root, train=False, download=True)


def _download_svhn(root: Path) -> None:
    for split in ("train", "test"):
        _torchvision_class("svhn")(root, split, download=True)


def _torchvision_class(kind: str) -> Any:
    try:
        from torchvision import datasets
    except ImportError as error:
        raise CuttlefishError(
            f"data={kind} is read by torchvision, which is not installed: install torchvision"
        ) from error
    return getattr(datasets, kind.upper())


DATA_SETS = {
    "cifar10": ImageSet(
        "CIFAR-10",
        classes=lambda config: 10,
        load=_load_cifar,
        files=FileSet(
            "cifar-10-batches-py",
            {
                "data_batch_1": "c99cafc152244af753f735de768cd75f",
                "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                "data_batch_4": "634d18415352ddfa80567beed471001a",
                "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
                "test_batch": "40351d587109b95175f43aff81a1287e",
                "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
            },
            download=lambda root: _download_cifar("cifar10", root),
            pickled=True,
        ),
    ),
    "cifar100": ImageSet(
        "CIFAR-100",
        classes=lambda config: 100,
        load=_load_cifar,
        files=FileSet(
            "cifar-100-python",
            {
                "train": "16019d7e3df5f24257cddd939b257f8d",
                "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
                "meta": "7973b15100ade9c7d40fb424638fde48",
            },
            download=lambda root: _download_cifar("cifar100", root),
            pickled=True,
        ),
    ),
    "svhn": ImageSet(
        "SVHN",
        classes=lambda config: 10,
        load=_load_svhn,
        files=FileSet(
            ".",
            {
                "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
                "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
            },
            download=_download_svhn,
        ),
    ),
}
