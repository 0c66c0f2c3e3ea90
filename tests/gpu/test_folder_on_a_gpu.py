"""Folders of images on a GPU: batches copied on a stream of their own are those of the CPU."""

import torch

from cuttlefish.config.validate import load_config
from cuttlefish.tasks.registry import data_set
from tests.helpers.photos import write_photos

DATA = {
    "name": "folder", "kind": "folder", "image_size": 64, "flip": True, "crop_scale": [0.2, 1.0], "workers": 2,
    "mixup": 0.8, "cutmix": 1.0,
}  # fmt: skip


def test_batches_are_those_of_the_cpu_while_the_device_is_busy(tmp_path, device):
    root = write_photos(tmp_path, classes=3, train=30, val=2)
    config = load_config({"data": {**DATA, "root": str(root)}})
    found = []
    for place in ("cpu", device):
        task = data_set(config.data).task(config, torch.device(place), torch.float32)
        batches = []
        for batch in task.train_batches(16, seed=1, epoch=0):
            busy = torch.ones(512, 512, device=place) @ torch.ones(512, 512, device=place)
            batches.append((batch.inputs * (busy[0, 0] / 512), batch.targets))
        found.append([(inputs.cpu(), targets.cpu()) for inputs, targets in batches])
    assert len(found[0]) == len(found[1]) == 6
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one[0], other[0])
        torch.testing.assert_close(one[1], other[1])
