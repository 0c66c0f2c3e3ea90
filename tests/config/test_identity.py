from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from cuttlefish.config import identity
from cuttlefish.config.identity import run_folder, run_key
from cuttlefish.config.schema import Config, TrainerConfig
from cuttlefish.config.validate import load_config, to_dict
from tests.helpers.mappings import with_value

DIGEST = "0" * 64
RECIPE = {"recipe": {"schedule": {"peak_lr": 0.8, "warmup_epochs": 5}}}
SMALL = {"model": {"width": 16}, "data": {"images_per_class": 1000, "flip": True}}
CUTTLEFISH = {"method": {"name": "cuttlefish", "preset": "reference", "k": "paper", "paper_k": 5}}

NO_RESULT = set(
    "logger.console logger.plots logger.csv logger.tensorboard logger.wandb.mode logger.wandb.project "
    "logger.wandb.entity logger.wandb.group logger.wandb.tags run_dir runs_root experiment_name scale fork_from "
    "recipe.name model.folder data.root data.download data.verify trainer.device trainer.devices trainer.threads "
    "trainer.precision trainer.compile trainer.recompute trainer.channels_last trainer.checkpoint_epochs "
    "trainer.checkpoint_minutes trainer.timeout_minutes trainer.max_restarts trainer.torch_profile".split()
)


def key_of(mapping: dict[str, Any], **others: Any) -> str:
    return run_key(to_dict(load_config(mapping)), **{"data_digest": DIGEST, "method_version": 1, **others})


def leaves(mapping: dict[str, Any], where: str = "") -> Iterator[str]:
    for key, value in mapping.items():
        path = f"{where}.{key}" if where else key
        if isinstance(value, dict) and value and path != "method":
            yield from leaves(value, path)
        else:
            yield path


def key_with(path: str, value: Any) -> str:
    """The key of the defaults with another value at a dotted path."""
    return run_key(with_value(to_dict(Config()), path, value), DIGEST, 1)


@pytest.mark.parametrize(
    ("mapping", "pinned"),
    [
        ({}, "773c4dd7d6c8"),
        ({"seed": 1}, "d3894b3e022f"),
        (RECIPE, "ec83fd64ec5b"),
        (RECIPE | CUTTLEFISH | SMALL, "a8fb0e42cee9"),
        ({"model": {"name": "resnet50", "source": "timm", "arguments": {"drop_rate": 0.1}}}, "7c0a61cfcaaa"),
    ],
)
def test_pinned_keys_never_change(mapping, pinned):
    """A change here orphans every record there is: give the new field a default that means "as before" instead."""
    assert key_of(mapping) == pinned


def test_a_new_field_whose_default_means_as_before_changes_no_key(monkeypatch):
    before = key_of({**RECIPE, **CUTTLEFISH})

    @dataclass(frozen=True)
    class NewTrainer(TrainerConfig):
        ema: float | None = None

    @dataclass(frozen=True)
    class NewConfig(Config):
        trainer: NewTrainer = field(default_factory=NewTrainer)
        note: list[str] = field(default_factory=lambda: ["as", "before"])

    monkeypatch.setattr(identity, "Config", NewConfig)
    config = to_dict(load_config({**RECIPE, **CUTTLEFISH}))
    grown = {**config, "trainer": {**config["trainer"], "ema": None}, "note": ["as", "before"]}
    assert run_key(grown, DIGEST, 1) == before
    assert run_key({**grown, "note": []}, DIGEST, 1) != before
    assert run_key({**grown, "trainer": {**grown["trainer"], "ema": 0.9}}, DIGEST, 1) != before


def test_a_new_knob_at_its_default_changes_no_key():
    defaults = {"k": "profile", "ratio": 0.25}
    before = key_of(CUTTLEFISH, method_defaults=defaults)
    method = {"method": {**CUTTLEFISH["method"], "ratio": 0.25, "new": False}}
    assert key_of(method, method_defaults={**defaults, "new": False}) == before
    method["method"]["new"] = True
    assert key_of(method, method_defaults={**defaults, "new": False}) != before


@pytest.mark.parametrize("path", [path for path in leaves(to_dict(Config())) if path != "method"])
def test_a_key_tells_exactly_what_changes_the_result(path):
    changed = key_with(path, "something else") != run_key(to_dict(Config()), DIGEST, 1)
    assert changed == (path not in NO_RESULT)


def test_the_list_of_what_does_not_count_is_of_real_keys():
    assert set(leaves(to_dict(Config()))) >= NO_RESULT


def test_method_data_and_version_count_but_not_the_preset_s_name():
    reference = key_of(CUTTLEFISH)
    assert key_of({"method": {**CUTTLEFISH["method"], "preset": "mine"}}) == reference
    assert key_of({"method": {**CUTTLEFISH["method"], "name": "other"}}) != reference
    assert key_of({"method": {**CUTTLEFISH["method"], "paper_k": 4}}) != reference
    assert key_of(CUTTLEFISH, data_digest="1" * 64) != reference
    assert key_of(CUTTLEFISH, method_version=2) != reference


def test_the_spelling_of_a_value_does_not_count():
    assert key_with("recipe.schedule.gamma", 1) == key_with("recipe.schedule.gamma", 1.0)
    assert key_with("data.mean", (0.1, 0.2, 0.3)) == key_with("data.mean", [0.1, 0.2, 0.3])


def test_the_order_of_keys_does_not_count():
    config = to_dict(Config())
    assert run_key(dict(reversed(config.items())), DIGEST, 1) == run_key(config, DIGEST, 1)
    assert key_with("model.arguments", {"a": 1, "b": 2}) == key_with("model.arguments", {"b": 2, "a": 1})


def test_true_is_not_one():
    assert key_with("model.arguments", {"a": True}) != key_with("model.arguments", {"a": 1})


def test_the_folder_is_the_experiment_and_the_key():
    config = load_config({"method": {"name": "cuttlefish"}})
    assert run_folder(config, "abc") == Path("runs/resnet18-cifar10-cuttlefish/abc")
    named = replace(config, experiment_name="reduced/a", runs_root="/r")
    assert run_folder(named, "abc") == Path("/r/reduced/a/abc")
    assert run_folder(replace(config, run_dir="/x/y"), "abc") == Path("/x/y")


def test_a_model_s_name_stays_one_folder():
    config = load_config({"model": {"name": "hf_hub:timm/x y", "source": "timm"}})
    assert run_folder(config, "abc").parent == Path("runs/hf_hub_timm_x_y-cifar10-full_rank")


def test_another_piece_of_evidence_has_another_folder():
    variants = [
        {"trainer": {"precision": "bf16"}},
        {"trainer": {"precision": "tf32"}},
        {"trainer": {"compile": True}},
        {"trainer": {"devices": 4}},
        {"trainer": {"precision": "bf16", "devices": 4, "compile": True}},
        {"trainer": {"devices": 4, "threads": 1}},
        {"trainer": {"threads": 2}},
        {"fork_from": "runs/a"},
        {"fork_from": "runs/b"},
        {},
    ]
    names = [run_folder(load_config(variant), "abc").name for variant in variants]
    assert names[:5] == ["abc-bf16", "abc-tf32", "abc-compile", "abc-x4", "abc-bf16-compile-x4"]
    assert names[5:7] == ["abc-x4-threads1", "abc-threads2"]
    assert names[-1] == "abc" and len(set(names)) == len(variants)


def test_a_fork_s_folder_does_not_depend_on_how_the_path_is_written():
    absolute = load_config({"fork_from": str(Path("runs/a").resolve())})
    assert run_folder(load_config({"fork_from": "runs/./a/"}), "abc") == run_folder(absolute, "abc")
