"""Short training runs on synthetic images, for benches of what a real run does."""

import tempfile
from typing import Any

from cuttlefish.config.schema import Config
from cuttlefish.config.validate import load_config
from cuttlefish.record.folder import read_epochs
from cuttlefish.worker import run_config


def little_config(
    folder: str,
    *,
    width: int,
    images: int,
    recipe: dict[str, Any],
    trainer: dict[str, Any],
    model: str = "resnet18",
    method: dict[str, Any] | None = None,
) -> Config:
    """Return the config of a run that writes to `folder`; at full rank without a method."""
    mapping = {
        "model": {"name": model, "width": width},
        "data": {
            "name": "synthetic",
            "kind": "synthetic",
            "train_images": images,
            "test_images": 10,
            "crop_padding": 4,
            "flip": True,
        },
        "recipe": recipe,
        "trainer": trainer,
        "logger": {"console": False, "plots": False, "wandb": {"mode": "disabled"}},
        "run_dir": folder,
    }
    return load_config(mapping | ({"method": method} if method else {}))


def epoch_seconds(**settings: Any) -> list[dict[str, float]]:
    """Train a run with these settings (see `little_config`); return the seconds of each epoch by part."""
    with tempfile.TemporaryDirectory() as folder:
        run_config(little_config(folder, **settings))
        return [row["seconds"] for row in read_epochs(folder)]
