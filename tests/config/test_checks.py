from typing import Any

import pytest

from cuttlefish.config.validate import load_config
from cuttlefish.errors import CuttlefishError


def nested(path: str, value: Any) -> dict[str, Any]:
    """{"a": {"b": value}} of "a.b"."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def merged(*mappings: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for mapping in mappings:
        for key, value in mapping.items():
            result[key] = merged(result[key], value) if key in result and isinstance(value, dict) else value
    return result


def config_of(**values: Any) -> Any:
    return load_config(merged(*(nested(path.replace("__", "."), value) for path, value in values.items())))


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
    load_config(nested(path, good))
    with pytest.raises(CuttlefishError, match=path.split(".")[-1]) as caught:
        load_config(nested(path, bad))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"recipe__epochs": 3, "recipe__schedule__warmup_epochs": 5}, "does not fit into 3 epochs"),
        ({"recipe__optimizer__nesterov": True, "recipe__optimizer__momentum": 0.0}, "momentum above 0"),
        ({"recipe__optimizer__nesterov": True, "recipe__optimizer__name": "adamw"}, "name=sgd"),
        ({"trainer__device": "cpu", "trainer__precision": "tf32"}, "needs trainer.device=cuda"),
        ({"trainer__overfit": True, "trainer__devices": 2}, "trainer.devices=2"),
        ({"recipe__batch_size": 2, "trainer__devices": 4}, "trainer.devices=4"),
        ({"model__pretrained": True}, "no pretrained resnet18"),
        ({"model__arguments": {"drop": 0.1}}, "model.width only"),
        ({"model__source": "timm", "model__width": 8}, "suite's own networks"),
        ({"scale": "paper", "trainer__max_steps": 3}, "trainer.max_steps is for debugging"),
        ({"scale": "paper", "trainer__overfit": True}, "scale=free"),
        ({"scale": "paper", "data__images_per_class": 10}, "scale=paper means the whole"),
        ({"scale": "paper", "data__kind": "digits"}, "scale=paper means the whole"),
        ({"scale": "reduced"}, "data.images_per_class=1000"),
        ({"data__images_seed": 1}, "give that too"),
        (
            {"scale": "reduced", "data__images_per_class": 1000, "data__images_seed": 1},
            "so that its records compare",
        ),
        ({"scale": "reduced", "data__images_per_class": 1000, "data__kind": "svhn"}, "data=cifar10"),
        (
            {"scale": "reduced", "data__images_per_class": 1000, "trainer__torch_profile": True},
            "torch_profile is for debugging",
        ),
    ],
)
def test_contradictions_are_refused(values, word):
    with pytest.raises(CuttlefishError) as caught:
        config_of(**values)
    assert word in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"trainer__device": "cpu", "trainer__precision": "bf16"},
        {"trainer__device": "auto", "trainer__precision": "tf32"},
        {"data__kind": "digits", "data__flip": True, "data__crop_padding": 4, "data__image_size": 32},
        {
            "data__kind": "synthetic",
            "data__classes": 2,
            "data__image_size": 8,
            "data__train_images": 4,
            "data__test_images": 4,
        },
        {"model__source": "timm", "model__pretrained": True, "model__arguments": {"img_size": 32}},
        {"scale": "reduced", "data__images_per_class": 1000},
        {"scale": "paper"},
        {"scale": "smoke", "trainer__max_steps": 1, "trainer__overfit": True},
    ],
)
def test_what_only_looks_odd_is_accepted(values):
    config_of(**values)
