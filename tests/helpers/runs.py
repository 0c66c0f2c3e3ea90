"""Small whole runs: one table of minimal settings a method drives the generic tests of all methods."""

from pathlib import Path
from typing import Any

import yaml

from cuttlefish.config.schema import Config
from cuttlefish.config.validate import build_settings, load_config
from cuttlefish.methods import load_method
from tests.helpers.mappings import with_value

CONF = Path(__file__).resolve().parents[2] / "conf"

METHODS: dict[str, dict[str, Any]] = {
    "full_rank": {},
    "cuttlefish": {"k": 1, "switch_epoch": 2, "metric": "unscaled", "frobenius_decay": 1e-4},
    "pufferfish": {"k": 3, "switch_epoch": 2},
    "si_fd": {"rho": 0.2},
    "xnor": {},
    "grasp": {"ratio": 0.8, "samples_per_class": 3},
    "lc": {"recipe": {"epochs": 1}, "steps": 3, "epochs_per_l": 1, "ft_epochs": 1, "alpha": 1e-3, "mu0": 2.0},
    "imp": {"levels": 2, "rewind_epoch": 1, "level_epochs": 2},
    "eb": {"fifo": 2, "eps": 1.0, "gamma_init": 0.5},
}
"""method -> knobs with which all that it does happens within EPOCHS epochs on the little networks."""

EPOCHS = 4

EXACT = {
    "trainer__precision": "fp64",
    "trainer__sync_bn": True,
    "recipe__epochs": 3,
    "data__train_images": 49,
}
"""For comparing numbers of processes: of 49 images in batches of 16 the last is one image, so that all
processes but one have an empty share of it."""


def composed_settings(method: str, *words: str) -> Any:
    """What a command line gives a method, as its Settings."""
    from cuttlefish.config.compose import compose_config  # Hydra, which a borrowed GPU's machine lacks

    config = compose_config(CONF, [f"method={method}", *words])
    return build_settings(load_method(method).Settings, config.method)


def little_config(folder: Path, method: str = "full_rank", **overrides: Any) -> Config:
    """Return a run of seconds: synthetic 12 × 12 images, a narrow ResNet-18, deterministic."""
    mapping = {
        "model": {"name": "resnet18", "width": 8},
        "data": {
            "name": "synthetic",
            "kind": "synthetic",
            "classes": 4,
            "image_size": 12,
            "train_images": 56,
            "test_images": 24,
            "crop_padding": 1,
            "flip": True,
        },
        "recipe": {
            "name": "test",
            "epochs": EPOCHS,
            "batch_size": 16,
            "schedule": {"peak_lr": 0.05, "base_lr": 0.01, "warmup_epochs": 1},
        },
        "trainer": {"device": "cpu", "deterministic": True},
        "logger": {"console": False, "plots": False, "wandb": {"mode": "disabled"}},
        "method": {"name": method, **METHODS.get(method, {})},
        "run_dir": str(folder),
    }
    for key, value in overrides.items():
        with_value(mapping, key.replace("__", "."), value)
    return load_config(yaml.safe_load(yaml.safe_dump(mapping)))
