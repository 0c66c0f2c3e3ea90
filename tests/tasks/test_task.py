from dataclasses import replace

import numpy as np
import pytest
import torch

from cuttlefish.config.schema import DataConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.tasks.files import data_digest
from cuttlefish.tasks.images import load_images
from cuttlefish.tasks.registry import data_set
from cuttlefish.tasks.sets import torchvision_sets


def load_task(config, device="cpu"):
    return load_images(data_set(config), config, device)


@pytest.mark.parametrize(
    ("config", "classes", "shape"),
    [
        (DataConfig(name="digits", kind="digits"), 10, (3, 16, 16)),
        (
            DataConfig(
                name="made", kind="synthetic", classes=4, image_size=12, train_images=50, test_images=9
            ),
            4,
            (3, 12, 12),
        ),
    ],
)
def test_a_task_says_what_it_is(config, classes, shape):
    task = load_task(config, "cpu")
    assert (task.name, task.classes, task.input_shape) == (config.name, classes, shape)
    assert task.digest == data_digest(config)
    batch = next(iter(task.test.batches(5, train=False)))
    assert batch.inputs.shape == (5, *shape)
    assert set(task.train.labels.tolist()) == set(range(classes))


def test_training_is_augmented_and_evaluation_is_not():
    task = load_task(DataConfig(kind="synthetic", crop_padding=2, flip=True), torch.device("cpu"))
    assert (task.train.crop_padding, task.train.flip) == (2, True)
    assert (task.test.crop_padding, task.test.flip) == (0, False)


def test_normalisation_is_the_settings():
    plain = (
        load_task(DataConfig(kind="synthetic", mean=[0, 0, 0], std=[1, 1, 1]), "cpu").test.example(50).inputs
    )
    scaled = (
        load_task(DataConfig(kind="synthetic", mean=[0.1, 0.2, 0.3], std=[0.5, 0.25, 2]), "cpu")
        .test.example(50)
        .inputs
    )
    expected = (plain - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.25, 2]).view(
        3, 1, 1
    )
    torch.testing.assert_close(scaled, expected)


def test_a_reduced_set_is_the_first_of_each_class(write_cifar10):
    root, _ = write_cifar10()
    config = DataConfig(root=str(root), images_per_class=3)
    images, labels = data_set(config).load(config, "train")
    task = load_task(config, "cpu")
    chosen = sorted(index for label in range(10) for index in np.flatnonzero(labels == label)[:3])
    assert torch.equal(task.train.images, torch.from_numpy(images[chosen]))
    assert task.train.labels.tolist() == labels[chosen].tolist()
    assert len(task.test) == 20 and task.digest == data_digest(DataConfig(root=str(root)))


def test_validation_holds_out_a_tenth_and_never_loads_test(write_cifar10, monkeypatch):
    root, _ = write_cifar10(count=40)
    load, asked = data_set(DataConfig()).load, []
    watched = replace(data_set(DataConfig()), load=lambda *given: asked.append(given[1]) or load(*given))
    monkeypatch.setitem(torchvision_sets.DATA_SETS, "cifar10", watched)
    settings = {"root": str(root), "images_per_class": 20}
    whole = load_task(DataConfig(**settings), "cpu")
    asked.clear()
    task = load_task(DataConfig(**settings, evaluate_on="validation", crop_padding=4, flip=True), "cpu")
    assert asked == ["train"]
    assert (
        torch.bincount(task.test.labels).tolist() == [2] * 10
        and torch.bincount(task.train.labels).tolist() == [18] * 10
    )
    assert (task.test.crop_padding, task.test.flip) == (0, False)
    rows = {
        data: {image.numpy().tobytes() for image in data.images}
        for data in (whole.train, task.train, task.test)
    }
    assert rows[task.train].isdisjoint(rows[task.test])
    assert rows[task.train] | rows[task.test] == rows[whole.train]
    again = load_task(DataConfig(**settings, evaluate_on="validation"), "cpu")
    assert torch.equal(again.test.images, task.test.images)


def test_more_images_than_a_class_has_are_refused():
    with pytest.raises(CuttlefishError, match="images_per_class=101 is not possible: class 0 has 100"):
        load_task(DataConfig(kind="synthetic", images_per_class=101), "cpu")


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("kind", "folder", "classes", "train_labels", "test_labels"),
    [
        (
            "cifar10",
            "cifar-10-batches-py",
            10,
            [6, 9, 9, 4, 1, 1, 2, 7, 8, 3],
            [3, 8, 8, 0, 6, 6, 1, 6, 3, 1],
        ),
        ("cifar100", "cifar-100-python", 100, [19, 29, 0, 11, 1], [49, 33, 72, 51, 71]),
    ],
)
def test_the_real_cifar(shared_data, kind, folder, classes, train_labels, test_labels):
    root = shared_data(folder)
    task = load_task(DataConfig(kind=kind, root=str(root)), "cpu")
    assert (len(task.train), len(task.test), task.classes) == (50_000, 10_000, classes)
    assert task.train.labels[: len(train_labels)].tolist() == train_labels
    assert task.test.labels[: len(test_labels)].tolist() == test_labels
    assert torch.bincount(task.train.labels).tolist() == [50_000 // classes] * classes
    assert torch.bincount(task.test.labels).tolist() == [10_000 // classes] * classes
    pixels = task.train.images.sum((0, 1, 2)) / (255 * 50_000 * 32 * 32)
    known = {"cifar10": [0.4914, 0.4822, 0.4465], "cifar100": [0.5071, 0.4866, 0.4409]}[kind]
    torch.testing.assert_close(pixels, torch.tensor(known), rtol=0, atol=2e-4)
