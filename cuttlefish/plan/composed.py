"""A point composed into a config, and from it the run key of each seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cuttlefish.config import Config, DataConfig
from cuttlefish.data.files import data_digest, digest_of
from cuttlefish.data.published import FILE_SETS
from cuttlefish.identity import run_folder, run_key
from cuttlefish.plan.points import Point
from cuttlefish.validate import load_config, to_dict


def composed(point: Point, conf: Path) -> dict[str, Any]:
    """Everything about a point that its runs' keys follow from, as JSON: composing again is what costs time.

    config: resolved, at seed 0 and without a size to match; version, defaults: the method's; epochs: see `PlannedRun`.
    """
    from cuttlefish.compose import compose_config  # Hydra
    from cuttlefish.methods import build_method  # torch

    config = compose_config(conf, point.words)
    matched = {**config.method, "match": "unknown"} if point.match else config.method
    method = build_method(matched)
    knobs = {key: value for key, value in to_dict(method.settings).items() if value is not None}
    labels = {"name": config.method["name"], "preset": config.method.get("preset")}
    config = replace(config, method={**labels, **knobs})
    defaults = to_dict(type(method).Settings())
    epochs = method.planned_epochs(config.recipe)
    return {"config": to_dict(config), "version": type(method).version, "defaults": defaults, "epochs": epochs}


def seeded(entry: Mapping[str, Any], seed: int, match: str | None) -> Config:
    """The config of one seed, with the run key whose size it takes."""
    config = load_config(entry["config"])
    method = {key: value for key, value in {**config.method, "match": match}.items() if value is not None}
    return replace(config, seed=seed, method=method)


def key_and_folder(entry: Mapping[str, Any], config: Config) -> tuple[str, Path]:
    """As the front door would have them, without the data where its digest is a published one."""
    key = run_key(to_dict(config), published_digest(config.data), entry["version"], entry["defaults"])
    return key, run_folder(config, key)


def published_digest(config: DataConfig) -> str:
    """`data_digest` of verified files, from their published checksums alone; generated data has its own."""
    if config.kind in FILE_SETS and config.verify:
        return digest_of(FILE_SETS[config.kind].md5)
    return data_digest(config)
