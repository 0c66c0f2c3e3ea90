"""Small sets in the original file formats, written by other means than the suite's own."""

import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from cuttlefish.tasks.registry import data_sets

CIFAR10_FILES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


@pytest.fixture
def write_cifar10(tmp_path, monkeypatch):
    """Writes five training files and a test file of `count` random images, and publishes their checksums.

    Returns the data root and the arrays.
    """

    def write(count: int = 20, seed: int = 0) -> tuple[Path, dict[str, tuple[np.ndarray, list[int]]]]:
        random = np.random.RandomState(seed)
        folder = tmp_path / "root" / "cifar-10-batches-py"
        folder.mkdir(parents=True)
        written = {}
        for name in CIFAR10_FILES:
            rows = random.randint(0, 256, (count, 3072)).astype(np.uint8)
            labels = [int(label) for label in random.permutation(np.arange(count) % 10)]
            written[name] = rows, labels
            (folder / name).write_bytes(
                pickle.dumps({"data": rows, "labels": labels, "batch_label": name}, protocol=2)
            )
        (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}, protocol=2))
        _publish(monkeypatch, folder)
        return folder.parent, written

    return write


def _publish(monkeypatch, folder: Path) -> None:
    """Make the suite and torchvision take the files that are there for the published ones."""
    from torchvision.datasets import CIFAR10

    md5 = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5[name]] for name in CIFAR10_FILES[:-1]])
    monkeypatch.setattr(CIFAR10, "test_list", [[name, md5[name]] for name in CIFAR10_FILES[-1:]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5["batches.meta"]})
    for name, checksum in md5.items():
        monkeypatch.setitem(data_sets()["cifar10"].files.md5, name, checksum)


@pytest.fixture
def shared_data():
    """The data root in which `name` is, where the environment names one."""

    def find(name: str) -> Path:
        root = os.environ.get("CUTTLEFISH_DATA")
        if not root or not (Path(root) / name).exists():
            pytest.skip(f"no {name} below CUTTLEFISH_DATA ({root or 'not set'})")
        return Path(root)

    return find
