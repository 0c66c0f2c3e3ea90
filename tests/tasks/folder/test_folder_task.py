"""The task of an image folder: order, resuming, processes, workers, splits and metrics."""

import numpy as np
import pytest
import torch

from cuttlefish.config.validate import load_config
from cuttlefish.errors import CuttlefishError
from cuttlefish.tasks.folder.task import TopFive
from cuttlefish.tasks.registry import data_set
from tests.helpers.photos import write_photos

DATA = {
    "name": "folder", "kind": "folder", "image_size": 16, "flip": True, "crop_scale": [0.2, 1.0], "workers": 0,
}  # fmt: skip
ALL = {"rand_augment": "rand-m9-mstd0.5-inc1", "erase": 0.5, "mixup": 0.8, "cutmix": 1.0, "repeats": 3}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"), classes=3, train=7, val=3)


def task_of(root, **settings):
    config = load_config({"data": {**DATA, "root": root and str(root), **settings}})
    return data_set(config.data).task(config, torch.device("cpu"), torch.float32)


def batches(task, *, seed=1, epoch=2, **options):
    return list(task.train_batches(8, seed=seed, epoch=epoch, **options))


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a.inputs, b.inputs)
        and torch.equal(a.targets, b.targets)
        and a.global_size == b.global_size
        for a, b in zip(one, other, strict=True)
    )


def test_an_epoch_shows_each_image_once_in_an_order_of_its_own(root):
    task = task_of(root, crop_scale=None, flip=False)
    assert (task.classes, task.train_size, task.class_counts()) == (3, 21, [7, 7, 7])
    found = batches(task)
    assert [batch.global_size for batch in found] == [len(batch) for batch in found] == [8, 8, 5]
    sums = [torch.cat([b.inputs for b in batches(task, epoch=e)]).sum((1, 2, 3)).tolist() for e in (2, 3)]
    assert sums[0] != sums[1] and np.allclose(sorted(sums[0]), sorted(sums[1]))
    assert found[0].inputs.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("settings", [{}, ALL], ids=["plain", "all"])
def test_neither_workers_nor_the_step_to_begin_at_change_a_sample(root, settings):
    one = batches(task_of(root, **settings))
    assert same(one, batches(task_of(root, workers=2, **settings)))
    assert same(one[2:], batches(task_of(root, **settings), first=2))
    assert not same(one, batches(task_of(root, **settings), seed=2))


@pytest.mark.parametrize("settings", [{}, ALL], ids=["plain", "all"])
def test_processes_share_the_batches_of_one(root, settings):
    task = task_of(root, **settings)
    shares = [batches(task, process=process, processes=4) for process in range(4)]
    for step, whole in enumerate(batches(task)):
        images = torch.cat([own[step].inputs for own in shares])
        targets = torch.cat([own[step].targets for own in shares])
        assert images.shape == whole.inputs.shape and targets.dtype == whole.targets.dtype
        order, other = (found.flatten(1).sum(1).argsort() for found in (images, whole.inputs))
        torch.testing.assert_close(images[order], whole.inputs[other])
        torch.testing.assert_close(targets[order], whole.targets[other])


def test_what_is_passed_on_a_resume_is_not_read(root, tmp_path):
    task = task_of(root)
    task.cropped.files = task.cropped.files.copy()
    order, _, _ = task._drawn(0, 1, 2)
    task.cropped.files[order[:16]] = b"gone"
    assert len(batches(task, first=2)) == 1
    with pytest.raises(
        CuttlefishError, match="gone is no image that can be read .*; replace it or remove it"
    ):
        batches(task)


def test_repeated_augmentation_shows_fewer_images_several_times(root):
    order, words, _ = task_of(root, repeats=3)._drawn(0, 5, 0)
    plain, _, _ = task_of(root)._drawn(0, 5, 0)
    assert order.tolist() == [*plain[:3]] * 3 + [*plain[3:6]] * 3 + [*plain[6:9]]
    assert len(set(words.tolist())) == 21, "each time augmented anew"


@pytest.mark.parametrize("repeats", [2, 3, 4])
def test_no_image_is_mixed_with_a_copy_of_itself(root, repeats):
    order, _, _ = task_of(root, repeats=repeats)._drawn(0, 5, 0)
    assert (order[1:] != order[:-1]).all()


def test_evaluation_is_in_order_for_any_number_of_processes(root):
    task = task_of(root)
    whole = list(task.eval_batches(4))
    assert torch.cat([batch.targets for batch in whole]).tolist() == [0] * 3 + [1] * 3 + [2] * 3
    shares = [list(task.eval_batches(4, process=process, processes=3)) for process in range(3)]
    for batch, *own in zip(whole, *shares, strict=True):
        assert torch.equal(batch.inputs, torch.cat([part.inputs for part in own]))
        assert torch.equal(batch.targets, torch.cat([part.targets for part in own]))


def test_examples_are_always_the_same_and_samples_never_end(root):
    task = task_of(root, **ALL)
    few, more = task.example_batch(3), task.example_batch(500)
    assert torch.equal(few.inputs, more.inputs[:3]) and len(more) == 21
    drawn = task.samples(8, seed=0)
    taken = [next(drawn) for _ in range(5)]
    assert [len(batch) for batch in taken] == [8, 8, 5, 8, 8] and taken[0].targets.dtype == torch.int64
    assert torch.equal(next(task.samples(8, seed=0, order=1)).inputs, taken[3].inputs)


def test_reduced_and_validation_sets_are_those_of_other_images(root):
    assert task_of(root, images_per_class=2).class_counts() == [2, 2, 2]
    held = task_of(root, evaluate_on="validation")
    assert held.class_counts() == [6, 6, 6] and len(held.test) == 3


def test_top_five_is_counted_over_processes():
    outputs = torch.eye(8)[[0, 1, 2]] + torch.arange(8) * 0.01
    scores = TopFive()
    scores.update(outputs, torch.tensor([0, 5, 1]))
    assert scores.compute(lambda value: [value, value]) == pytest.approx(
        {"accuracy": 100 / 3, "accuracy_top5": 200 / 3}
    )


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"root": None}, "data=folder needs data.root"),
        ({"crop_scale": [0.9, 0.1]}, "data.crop_scale must be the smallest and the largest area"),
        ({"rand_augment": "nothing"}, "data.rand_augment=nothing is no policy"),
        ({"download": True}, "A folder of images cannot be downloaded"),
        ({"kind": "imagenet", "name": "imagenet"}, "there is no folder .*imagenet/train"),
    ],
)
def test_what_cannot_be_is_refused(root, settings, told):
    with pytest.raises(CuttlefishError, match=told):
        task_of(**{"root": root, **settings})


def test_imagenet_must_have_its_published_counts(root, tmp_path):
    (tmp_path / "imagenet").symlink_to(root)
    with pytest.raises(
        CuttlefishError, match="it has 3 classes, 21 training and 9 validation images, not 1000"
    ):
        task_of(tmp_path, kind="imagenet", name="imagenet")
    task = task_of(tmp_path, kind="imagenet", name="imagenet", verify=False)
    assert task.digest == task_of(root).digest
