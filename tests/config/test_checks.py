from typing import Any

import pytest

from cuttlefish.config.validate import load_config
from cuttlefish.errors import CuttlefishError
from tests.helpers.mappings import with_value


def config_of(values: dict[str, Any]) -> Any:
    mapping: dict[str, Any] = {}
    for path, value in values.items():
        with_value(mapping, path, value)
    return load_config(mapping)


@pytest.mark.parametrize(
    ("path", "bad", "good"),
    [
        ("model.width", 0, 1),
        ("model.name", "", "vgg19"),
        ("data.crop_padding", -1, 0),
        ("data.images_per_class", 0, 1),
        ("data.image_size", 0, 1),
        ("data.classes", 1, 2),
        ("data.train_images", 0, 1),
        ("data.mean", [0.5], [0.0, 0.0, 0.0]),
        ("data.std", [0.5, 0.5, 0.0], [0.1, 1, 2]),
        ("data.std", [0.5] * 4, [0.5] * 3),
        ("recipe.epochs", 0, 1),
        ("recipe.batch_size", 0, 1),
        ("recipe.eval_batch_size", 0, 1),
        ("recipe.label_smoothing", 1.0, 0.99),
        ("recipe.label_smoothing", -0.1, 0.0),
        ("recipe.optimizer.momentum", 1.0, 0.0),
        ("recipe.optimizer.weight_decay", -1e-4, 0.0),
        ("recipe.optimizer.betas", [0.9], [0.9, 0.95]),
        ("recipe.optimizer.betas", [0.9, 1.0], [0, 0]),
        ("recipe.optimizer.eps", 0.0, 1e-12),
        ("recipe.schedule.base_lr", 0.0, 1e-9),
        ("recipe.schedule.peak_lr", -0.1, 0.1),
        ("recipe.schedule.warmup_epochs", 301, 300),
        ("recipe.schedule.warmup_epochs", -1, 0),
        ("recipe.schedule.milestones", [0.75, 0.5], [0.5, 0.75]),
        ("recipe.schedule.milestones", [0.5, 0.5], []),
        ("recipe.schedule.milestones", [0.0, 0.5], [0.01, 0.5]),
        ("recipe.schedule.milestones", [0.5, 1.1], [0.5, 1.0]),
        ("recipe.schedule.gamma", 0.0, 1.0),
        ("recipe.schedule.min_lr", 0.2, 0.1),
        ("trainer.devices", 0, 2),
        ("trainer.threads", 0, 1),
        ("trainer.checkpoint_epochs", 0, 1),
        ("trainer.checkpoint_minutes", -1, 0),
        ("trainer.eval_epochs", 0, 1),
        ("trainer.max_steps", 0, 1),
        ("trainer.max_eval_batches", 0, 1),
        ("seed", -1, 0),
        ("seed", 2**32, 2**32 - 1),
        ("method.name", "", "full_rank"),
        ("method", {}, {"name": "full_rank"}),
        ("experiment_name", "../elsewhere", "table1/resnet18"),
        ("experiment_name", "/tmp/x", "x"),
        ("run_dir", "", "here"),
        ("runs_root", "", "runs"),
    ],
)
def test_out_of_range_names_the_key(path, bad, good):
    config_of({path: good})
    with pytest.raises(CuttlefishError, match=path.split(".")[-1]) as caught:
        config_of({path: bad})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"recipe.epochs": 3, "recipe.schedule.warmup_epochs": 5}, "does not fit into 3 epochs"),
        ({"recipe.optimizer.nesterov": True, "recipe.optimizer.momentum": 0.0}, "momentum above 0"),
        ({"recipe.optimizer.nesterov": True, "recipe.optimizer.name": "adamw"}, "name=sgd"),
        ({"trainer.device": "cpu", "trainer.precision": "tf32"}, "needs trainer.device=cuda"),
        ({"trainer.overfit": True, "trainer.devices": 2}, "trainer.devices=2"),
        ({"recipe.batch_size": 2, "trainer.devices": 4}, "trainer.devices=4"),
        ({"model.pretrained": True}, "no pretrained resnet18"),
        ({"model.arguments": {"drop": 0.1}}, "model.width only"),
        ({"model.source": "timm", "model.width": 8}, "suite's own networks"),
        ({"scale": "paper", "trainer.max_steps": 3}, "trainer.max_steps is for debugging"),
        ({"scale": "paper", "trainer.overfit": True}, "scale=free"),
        ({"scale": "paper", "data.images_per_class": 10}, "scale=paper means the whole"),
        ({"scale": "paper", "data.kind": "digits"}, "scale=paper means the whole"),
        ({"scale": "reduced"}, "data.images_per_class=1000"),
        ({"data.images_seed": 1}, "give that too"),
        (
            {"scale": "reduced", "data.images_per_class": 1000, "data.images_seed": 1},
            "so that its records compare",
        ),
        ({"scale": "reduced", "data.images_per_class": 1000, "data.kind": "svhn"}, "data=cifar10"),
        (
            {"scale": "reduced", "data.images_per_class": 1000, "trainer.torch_profile": True},
            "torch_profile is for debugging",
        ),
    ],
)
def test_contradictions_are_refused(values, word):
    with pytest.raises(CuttlefishError) as caught:
        config_of(values)
    assert word in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"trainer.device": "cpu", "trainer.precision": "bf16"},
        {"trainer.device": "auto", "trainer.precision": "tf32"},
        {"data.kind": "digits", "data.flip": True, "data.crop_padding": 4, "data.image_size": 32},
        {
            "data.kind": "synthetic",
            "data.classes": 2,
            "data.image_size": 8,
            "data.train_images": 4,
            "data.test_images": 4,
        },
        {"model.source": "timm", "model.pretrained": True, "model.arguments": {"img_size": 32}},
        {"scale": "reduced", "data.images_per_class": 1000},
        {"scale": "paper"},
        {"scale": "smoke", "trainer.max_steps": 1, "trainer.overfit": True},
    ],
)
def test_what_only_looks_odd_is_accepted(values):
    config_of(values)
