import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat
from torch.nn import functional as F

from cuttlefish.config.schema import DataConfig
from cuttlefish.data import cifar, digits, svhn, synthetic
from cuttlefish.errors import CuttlefishError


def nearest_mean_accuracy(family, config):
    (images, labels), (test_images, test_labels) = (family.load(config, split) for split in ("train", "test"))
    means = np.stack([images[labels == label].mean(0) for label in range(family.classes(config))])
    distances = ((test_images[:, None] - means[None]) ** 2).sum((2, 3, 4))
    return (distances.argmin(1) == test_labels).mean()


def test_cifar_rows_become_images_in_file_order(write_cifar10):
    root, written = write_cifar10()
    config = DataConfig(root=str(root), verify=False)
    images, labels = cifar.load(config, "train")
    names = [f"data_batch_{number}" for number in range(1, 6)]
    assert (
        labels.tolist() == [label for name in names for label in written[name][1]]
        and labels.dtype == np.int64
    )
    assert images.shape == (100, 32, 32, 3) and images.flags.c_contiguous
    row = written["data_batch_2"][0][5]
    assert images[25, 4, 9].tolist() == [row[4 * 32 + 9], row[1024 + 4 * 32 + 9], row[2048 + 4 * 32 + 9]]
    test_images, test_labels = cifar.load(config, "test")
    assert (
        test_labels.tolist() == written["test_batch"][1]
        and test_images[0, 0, 0, 0] == written["test_batch"][0][0, 0]
    )


@pytest.mark.real_data
@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_cifar_as_torchvision_reads_it(shared_data, kind):
    from torchvision import datasets

    root = shared_data("cifar-mini")
    base = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[kind]
    unchecked = type(
        "Unchecked", (base,), {"_check_integrity": lambda self: True, "_load_meta": lambda self: None}
    )
    config = DataConfig(kind=kind, root=str(root), verify=False)
    for split in ("train", "test"):
        expected = unchecked(root, train=split == "train")
        images, labels = cifar.load(config, split)
        np.testing.assert_array_equal(images, expected.data)
        assert labels.tolist() == expected.targets
    with pytest.raises(CuttlefishError, match="not the original"):
        cifar.load(DataConfig(kind=kind, root=str(root)), "train")


@pytest.mark.parametrize(
    "content",
    [
        {"labels": [0]},
        {"data": np.zeros((1, 3072), np.uint8)},
        {"data": np.zeros((1, 3072), np.uint8), "labels": [10]},
        {"data": np.zeros((1, 3072), np.uint8), "labels": [0, 1]},
        {"data": np.zeros((1, 3071), np.uint8), "labels": [0]},
        {"data": np.zeros((1, 3072), np.uint8), "labels": ["0"]},
        {"data": np.zeros((1, 3072), np.uint8), "fine_labels": [0]},
    ],
)
def test_a_file_of_another_shape_is_named(write_cifar10, content):
    import pickle

    root, _ = write_cifar10()
    path = root / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(CuttlefishError, match=f"{path} is not a CIFAR file"):
        cifar.load(DataConfig(root=str(root), verify=False), "train")


def test_svhn_digit_zero_is_label_zero(tmp_path):
    pixels = np.random.RandomState(0).randint(0, 256, (32, 32, 3, 4)).astype(np.uint8)
    for split in ("train", "test"):
        savemat(
            tmp_path / f"{split}_32x32.mat", {"X": pixels, "y": np.array([[10], [1], [9], [10]], np.uint8)}
        )
    images, labels = svhn.load(DataConfig(kind="svhn", root=str(tmp_path), verify=False), "train")
    assert labels.tolist() == [0, 1, 9, 0] and labels.dtype == np.int64
    for number in range(4):
        np.testing.assert_array_equal(images[number], pixels[..., number])


@pytest.mark.real_data
def test_svhn_as_torchvision_reads_it(shared_data):
    from torchvision import datasets

    root = shared_data("svhn-mini")
    unchecked = type("Unchecked", (datasets.SVHN,), {"_check_integrity": lambda self: True})
    for split, count in (("train", 883), ("test", 200)):
        expected = unchecked(root, split)
        images, labels = svhn.load(DataConfig(kind="svhn", root=str(root), verify=False), split)
        assert images.shape == (count, 32, 32, 3)
        np.testing.assert_array_equal(images.transpose(0, 3, 1, 2), expected.data)
        np.testing.assert_array_equal(labels, expected.labels)
    with pytest.raises(CuttlefishError, match="e26dedcc434d2e4c54c9b2d4a06d8373"):
        svhn.load(DataConfig(kind="svhn", root=str(root)), "train")


@pytest.mark.parametrize(
    "content", [{"X": np.zeros((32, 32, 3, 2), np.uint8)}, {"X": np.zeros((32, 32, 3, 1)), "y": [[1]]}, None]
)
def test_a_foreign_matrix_file_is_named(tmp_path, content):
    for split in ("train", "test"):
        path = tmp_path / f"{split}_32x32.mat"
        path.write_bytes(b"no matrix") if content is None else savemat(path, content)
    with pytest.raises(CuttlefishError, match="train_32x32.mat is not an SVHN file"):
        svhn.load(DataConfig(kind="svhn", root=str(tmp_path), verify=False), "train")


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
        np.testing.assert_array_equal(images, synthetic.load(config, split)[0])
    assert not np.array_equal(synthetic.load(config, "train")[0][:3], synthetic.load(config, "test")[0][:3])
    assert synthetic.classes(DataConfig(kind="synthetic")) == 10


def test_synthetic_is_pinned():
    images, _ = synthetic.load(
        DataConfig(kind="synthetic", classes=2, image_size=4, train_images=2, test_images=1), "test"
    )
    assert images.ravel()[:8].tolist() == [182, 51, 158, 166, 135, 22, 103, 197]


@pytest.mark.parametrize(
    ("family", "kind", "least"), [(synthetic, "synthetic", 0.99), (digits, "digits", 0.85)]
)
def test_made_sets_can_be_learned(family, kind, least):
    assert nearest_mean_accuracy(family, DataConfig(kind=kind, image_size=8)) > least
