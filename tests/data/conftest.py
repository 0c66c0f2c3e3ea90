"""Small sets in the original file formats, written by other means than the suite's own."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def write_cifar10(tmp_path):
    """Writes five training files and a test file with `count` random images each; returns the data root and the arrays."""

    def write(count: int = 20, seed: int = 0) -> tuple[Path, dict[str, tuple[np.ndarray, list[int]]]]:
        random = np.random.RandomState(seed)
        folder = tmp_path / "root" / "cifar-10-batches-py"
        folder.mkdir(parents=True)
        written = {}
        for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
            rows = random.randint(0, 256, (count, 3072)).astype(np.uint8)
            labels = [int(label) for label in random.permutation(np.arange(count) % 10)]
            written[name] = rows, labels
            (folder / name).write_bytes(
                pickle.dumps({"data": rows, "labels": labels, "batch_label": name}, protocol=2)
            )
        (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}, protocol=2))
        return folder.parent, written

    return write


@pytest.fixture
def shared_data():
    """The folder that holds real data sets, where the environment names one."""

    def find(name: str) -> Path:
        root = os.environ.get("CUTTLEFISH_DATA")
        if not root or not (Path(root) / name).exists():
            pytest.skip(f"no {name} below CUTTLEFISH_DATA ({root or 'not set'})")
        return Path(root) / name

    return find
