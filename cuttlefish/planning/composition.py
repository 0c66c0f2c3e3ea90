"""Compose a point into a config, and derive the run key of each seed."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cuttlefish.config.identity import run_folder, run_key
from cuttlefish.config.schema import Config
from cuttlefish.config.validate import load_config, to_dict
from cuttlefish.planning.points import Point
from cuttlefish.tasks.files import data_there, published_digest


def compose_point(point: Point, conf: Path) -> dict[str, Any]:
    """Return everything that determines the run keys of a point, as JSON, because composing again is slow.

    Returns:
        config: Resolved, at seed 0 and without a size to match. version, defaults: The method's. epochs: As
            in `PlannedRun`.
    """
    from cuttlefish.config.compose import compose_config  # Hydra
    from cuttlefish.methods import build_method  # torch

    config = compose_config(conf, point.words)
    matched = {**config.method, "match": "unknown"} if point.match else config.method
    method = build_method(matched)
    knobs = {key: value for key, value in to_dict(method.settings).items() if value is not None}
    labels = {"name": config.method["name"], "preset": config.method.get("preset")}
    config = replace(config, method={**labels, **knobs})
    defaults = to_dict(type(method).Settings())
    epochs = method.planned_epochs(method.settings, config.recipe)
    of_method = {"version": type(method).version, "defaults": defaults, "epochs": epochs}
    return {"config": to_dict(config), **of_method}


class Seeded:
    """A composition whose config is read and hashed once for any number of seeds."""

    def __init__(self, entry: Mapping[str, Any]):
        self.entry = entry
        self.config = load_config(entry["config"])
        self.mapping = to_dict(self.config)
        self.digest = published_digest(self.config.data)
        self.there = data_there(self.config.data)

    def config_of(self, seed: int, match: str | None) -> Config:
        """Return the config of one seed. match: run key of the run whose size it takes."""
        knobs = {**self.config.method, "match": match}
        method = {key: value for key, value in knobs.items() if value is not None}
        return replace(self.config, seed=seed, method=method)

    def key_and_folder(self, seed: int, match: str | None = None) -> tuple[str, str]:
        """Return the run key and folder as in `run.py`, without reading data with a published digest."""
        config = self.config_of(seed, match)
        mapping = {**self.mapping, "seed": seed, "method": config.method}
        key = run_key(mapping, self.digest, self.entry["version"], self.entry["defaults"])
        return key, str(run_folder(config, key))
