"""Whole runs on folders of images: generated ones, and the small ImageNet sets."""

import json
import os
import signal
from multiprocessing import active_children
from pathlib import Path

import pytest

from cuttlefish.config.compose import compose_config
from cuttlefish.config.validate import load_config, to_dict
from cuttlefish.engine.run import resolve_run
from cuttlefish.engine.step import StepRunner
from cuttlefish.errors import Interrupted
from cuttlefish.process.signals import StopSignals
from cuttlefish.worker import run_config, run_or_skip
from tests.helpers.photos import write_photos
from tests.helpers.runs import CONF

LITTLE_DEIT = [
    *("model=deit_small", "model.arguments.img_size=16", "+model.arguments.patch_size=4"),
    *("+model.arguments.embed_dim=32", "+model.arguments.depth=2", "+model.arguments.num_heads=2"),
]
SHORT = [
    *("recipe.epochs=3", "recipe.batch_size=16", "recipe.schedule.warmup_epochs=1"),
    *("trainer=deterministic", "trainer.device=cpu", "logger=quiet"),
]


def config(folder: Path, root: Path, *words: str):
    return compose_config(CONF, ["data=folder", f"data.root={root}", f"run_dir={folder}", *SHORT, *words])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"), classes=6, train=7, val=3)


def test_deit_s_recipe_brings_its_augmentation(tmp_path, root):
    found = config(tmp_path, root, "recipe=deit", *LITTLE_DEIT).data
    assert found.settings["mixup"] == 0.8 and found.settings["rand_augment"] == "rand-m9-mstd0.5-inc1"
    plain = config(tmp_path, root, *LITTLE_DEIT)
    assert plain.recipe.name == "imagenet_cnn" and plain.data.settings["mixup"] == 0.0


def test_a_little_deit_switches_and_ends_the_same_with_workers(tmp_path, root):
    words = [
        *("recipe=deit", "data.image_size=16", *LITTLE_DEIT, "method=cuttlefish", "method.k=paper"),
        *("method.switch_epoch=1", "method.rank_ratio=0.25"),
    ]
    records = [
        run_config(config(tmp_path / str(workers), root, *words, f"data.workers={workers}"))
        for workers in (0, 2)
    ]
    one, other = records
    assert one.status == "finished" and one.switch_epoch == 1 and len(one.ranks) == 8
    assert (
        one.metrics.keys() == {"accuracy", "accuracy_top5"}
        and one.metrics["accuracy_top5"] > one.accuracy_final
    )
    assert (one.run_key, one.loss_final) == (other.run_key, other.loss_final)


def test_the_run_key_knows_the_images_and_not_where_they_lie(tmp_path, root):
    base = to_dict(config(tmp_path / "run", root))
    (tmp_path / "moved").symlink_to(root)
    moved = {**base, "data": {**base["data"], "root": str(tmp_path / "moved"), "workers": 3}}
    other = {**base, "data": {**base["data"], "mixup": 0.1}}
    key, same, unlike = (resolve_run(load_config(one)).key for one in (base, moved, other))
    assert key == same != unlike


@pytest.mark.real_data
def test_the_small_imagenet_set_trains_end_to_end(tmp_path):
    """Real JPEG files, greyscale ones among them, by a quarter of ResNet-50 in the recipe for networks like it."""
    root = Path(os.environ["CUTTLEFISH_DATA"]) / "imagenet-mini"
    if not root.is_dir():
        pytest.skip("the small ImageNet set is absent")
    narrow = [
        "model=resnet50",
        "+model.arguments.channels=[16,32,64,128]",
        "+model.arguments.layers=[1,1,1,1]",
    ]
    words = [
        *narrow, "data.image_size=32", "method=cuttlefish", "method.k=6", "method.switch_epoch=2",
        "method.rank_ratio=0.25", "recipe.batch_size=80", "recipe.schedule.warmup_epochs=0", "data.workers=1",
    ]  # fmt: skip
    record = run_config(config(tmp_path, root, *words))
    assert record.status == "finished" and record.ranks and record.params_total < record.params_full
    losses = [json.loads(line)["train_loss"] for line in (tmp_path / "epochs.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0] and record.metrics.keys() == {"accuracy", "accuracy_top5"}


def test_a_stop_that_reaches_the_workers_too_saves_and_goes_on(tmp_path, root, monkeypatch):
    """As a terminal's Ctrl-C and a scheduler's signal do; the epoch's steps before it are not repeated."""
    words = ["recipe=deit", "data.image_size=16", *LITTLE_DEIT, "data.workers=2", "recipe.batch_size=8"]
    whole = run_config(config(tmp_path / "whole", root, *words))
    steps, step = [], StepRunner.step

    def stopped(self, *arguments):
        steps.append(None)
        if len(steps) == 8:
            for worker in active_children():
                os.kill(worker.pid, signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *arguments)

    monkeypatch.setattr(StepRunner, "step", stopped)
    cut = config(tmp_path / "cut", root, *words)
    with (
        pytest.raises(Interrupted, match="SIGTERM in epoch 2 after step 2 of 6, state saved"),
        StopSignals() as stop,
    ):
        run_or_skip(cut, stop)
    assert run_config(cut).loss_final == whole.loss_final and len(steps) == 18
