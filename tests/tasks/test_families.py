import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat, savemat
from torch.nn import functional as F

from cuttlefish.config.schema import DataConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.tasks.registry import data_set, data_sets
from cuttlefish.tasks.sets import digits, synthetic


def load(config, split):
    return data_set(config).load(config, split)


def nearest_mean_accuracy(config):
    (images, labels), (test_images, test_labels) = (load(config, split) for split in ("train", "test"))
    classes = data_set(config).classes(config)
    means = np.stack([images[labels == label].mean(0) for label in range(classes)])
    distances = ((test_images[:, None] - means[None]) ** 2).sum((2, 3, 4))
    return (distances.argmin(1) == test_labels).mean()


def test_cifar_rows_become_images_in_file_order(write_cifar10):
    root, written = write_cifar10()
    config = DataConfig(root=str(root))
    images, labels = load(config, "train")
    names = [f"data_batch_{number}" for number in range(1, 6)]
    assert labels.tolist() == [label for name in names for label in written[name][1]]
    assert labels.dtype == np.int64
    assert images.shape == (100, 32, 32, 3) and images.flags.c_contiguous
    row = written["data_batch_2"][0][5]
    assert images[25, 4, 9].tolist() == [row[4 * 32 + 9], row[1024 + 4 * 32 + 9], row[2048 + 4 * 32 + 9]]
    test_images, test_labels = load(config, "test")
    assert test_labels.tolist() == written["test_batch"][1]
    assert test_images[0, 0, 0, 0] == written["test_batch"][0][0, 0]


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("name", ["data_batch_2", "test_batch", "batches.meta"])
@pytest.mark.parametrize("verify", [True, False])
def test_an_unpublished_pickle_is_never_read(write_cifar10, tmp_path, name, verify):
    root, _ = write_cifar10()
    marker = tmp_path / "marker"
    (root / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(Payload(marker)))
    for split in ("train", "test"):
        with pytest.raises(CuttlefishError, match="not the original" if verify else "may run any code"):
            load(DataConfig(root=str(root), verify=verify), split)
    assert not marker.exists()
    pickle.loads((root / "cifar-10-batches-py" / name).read_bytes())
    assert marker.exists(), "the payload is real"


def test_svhn_digit_zero_is_label_zero(tmp_path):
    pixels = np.random.RandomState(0).randint(0, 256, (32, 32, 3, 4)).astype(np.uint8)
    for split in ("train", "test"):
        savemat(
            tmp_path / f"{split}_32x32.mat", {"X": pixels, "y": np.array([[10], [1], [9], [10]], np.uint8)}
        )
    images, labels = load(DataConfig(kind="svhn", root=str(tmp_path), verify=False), "train")
    assert labels.tolist() == [0, 1, 9, 0] and labels.dtype == np.int64
    for number in range(4):
        np.testing.assert_array_equal(images[number], pixels[..., number])


@pytest.mark.real_data
def test_svhn_as_scipy_reads_it(shared_data):
    root = shared_data("train_32x32.mat")
    for split, count in (("train", 883), ("test", 200)):
        expected = loadmat(root / f"{split}_32x32.mat")
        images, labels = load(DataConfig(kind="svhn", root=str(root), verify=False), split)
        assert images.shape == (count, 32, 32, 3) and images.flags.c_contiguous
        np.testing.assert_array_equal(images.transpose(1, 2, 3, 0), expected["X"])
        np.testing.assert_array_equal(labels, expected["y"].ravel() % 10)
    with pytest.raises(CuttlefishError, match="e26dedcc434d2e4c54c9b2d4a06d8373"):
        load(DataConfig(kind="svhn", root=str(root)), "train")


@pytest.mark.parametrize(
    "content", [{"X": np.zeros((32, 32, 3, 2), np.uint8)}, {"X": np.zeros((32, 32, 3, 1)), "y": [[1]]}, None]
)
def test_a_foreign_matrix_file_is_named(tmp_path, content):
    for split in ("train", "test"):
        path = tmp_path / f"{split}_32x32.mat"
        path.write_bytes(b"no matrix") if content is None else savemat(path, content)
    with pytest.raises(CuttlefishError, match="train_32x32.mat is not an SVHN file"):
        load(DataConfig(kind="svhn", root=str(tmp_path), verify=False), "train")


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    original = load_digits()
    parts = [digits.load(DataConfig(kind="digits", image_size=8), split) for split in ("train", "test")]
    assert [len(labels) for _, labels in parts] == [899, 898]
    shown = sorted(
        (*images[..., 0].ravel().tolist(), label)
        for part in parts
        for images, label in zip(*part, strict=True)
    )
    levels = np.rint(original.data * 255 / 16).astype(int).tolist()
    expected = sorted((*row, label) for row, label in zip(levels, original.target, strict=True))
    assert shown == expected
    train, test = (np.bincount(labels) for _, labels in parts)
    assert np.abs(train - test).max() <= 1


def test_digits_have_three_equal_channels_and_the_asked_size():
    for size, expected in ((None, 16), (32, 32)):
        images, _ = digits.load(DataConfig(kind="digits", image_size=size), "test")
        assert (
            images.shape == (898, expected, expected, 3) and images.dtype == np.uint8 and images.max() == 255
        )
        assert (images == images[..., :1]).all()


@settings(deadline=None, max_examples=30)
@given(size=st.integers(1, 40), seed=st.integers(0, 99))
def test_enlarging_is_torchs_bilinear(size, seed):
    images = np.random.RandomState(seed).uniform(0, 255, (2, 8, 8))
    expected = F.interpolate(torch.from_numpy(images)[None], size=(size, size), mode="bilinear")[0].numpy()
    assert np.abs(digits.enlarge(images, size) - expected).max() <= 0.5 + 1e-9


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    with pytest.raises(CuttlefishError, match="install scikit-learn"):
        digits.load(DataConfig(kind="digits"), "train")


def test_synthetic_sizes_and_determinism():
    config = DataConfig(kind="synthetic", classes=3, image_size=10, train_images=20, test_images=7)
    for split, count in (("train", 20), ("test", 7)):
        images, labels = synthetic.load(config, split)
        assert images.shape == (count, 10, 10, 3) and images.dtype == np.uint8
        assert labels.tolist() == [number % 3 for number in range(count)]
        np.testing.assert_array_equal(images, load(config, split)[0])
    assert not np.array_equal(synthetic.load(config, "train")[0][:3], synthetic.load(config, "test")[0][:3])
    assert synthetic.classes(DataConfig(kind="synthetic")) == 10


def test_synthetic_is_pinned():
    images, _ = load(
        DataConfig(kind="synthetic", classes=2, image_size=4, train_images=2, test_images=1), "test"
    )
    assert images.ravel()[:8].tolist() == [182, 51, 158, 166, 135, 22, 103, 197]


@pytest.mark.parametrize(("kind", "least"), [("synthetic", 0.99), ("digits", 0.85)])
def test_made_sets_can_be_learned(kind, least):
    assert nearest_mean_accuracy(DataConfig(kind=kind, image_size=8)) > least


def test_checksums_are_torchvisions():
    from torchvision import datasets

    files = {kind: item.files for kind, item in data_sets().items()}
    for kind, dataset in (("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)):
        meta = [dataset.meta["filename"], dataset.meta["md5"]]
        assert files[kind].md5 == dict([*dataset.train_list, *dataset.test_list, meta])
        assert files[kind].folder == dataset.base_folder and files[kind].pickled
    svhn = (datasets.SVHN.split_list[split] for split in ("train", "test"))
    assert files["svhn"].md5 == {name: md5 for _, name, md5 in svhn}


def test_a_machine_without_torchvision_is_told(write_cifar10, monkeypatch):
    root, _ = write_cifar10()
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(CuttlefishError, match="install torchvision"):
        load(DataConfig(root=str(root)), "train")
