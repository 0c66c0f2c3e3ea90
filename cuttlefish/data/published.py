"""The files of the public data sets and the checksums their authors (or torchvision) publish. Imports nothing heavy."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FileSet:
    """What a data set consists of below the data root.

    folder: where its files lie ("." for the root itself); packed: the folder of its packed form, None if it has none;
    md5: file name to published checksum, in the order in which the training images are read.
    """

    title: str
    folder: str
    packed: str | None
    md5: dict[str, str]


FILE_SETS = {
    "cifar10": FileSet(
        "CIFAR-10",
        "cifar-10-batches-py",
        "cifar-10.packed",
        {
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
            "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
        },
    ),
    "cifar100": FileSet(
        "CIFAR-100",
        "cifar-100-python",
        "cifar-100.packed",
        {
            "train": "16019d7e3df5f24257cddd939b257f8d",
            "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
            "meta": "7973b15100ade9c7d40fb424638fde48",
        },
    ),
    "svhn": FileSet(
        "SVHN",
        ".",
        None,
        {
            "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
            "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
        },
    ),
}
