"""The identity of a run: its key, a hash of all that changes its result, and its folder.

Only values that differ from their defaults are hashed, so that a new field with a neutral default changes no
key. Needs neither torch nor Hydra.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from cuttlefish.config.schema import Config
from cuttlefish.config.validate import to_dict

NOT_IN_KEY = frozenset(
    "logger run_dir runs_root experiment_name scale fork_from recipe.name model.folder data.root "
    "data.download data.verify data.workers trainer.device trainer.devices trainer.threads "
    "trainer.precision trainer.compile trainer.recompute trainer.channels_last trainer.checkpoint_epochs "
    "trainer.checkpoint_minutes trainer.timeout_minutes trainer.max_restarts trainer.torch_profile "
    "method.name method.preset data.train data.eval data.source data.revision".split()
)
"""Fields not hashed: labels, paths, loggers, and the hardware, precision, processes and threads.

A preset is hashed by its knobs. A fork has the key of the same run trained from the start."""


def run_key(
    config: Mapping[str, Any],
    data_digest: str,
    method_version: int,
    method_defaults: Mapping[str, Any] | None = None,
) -> str:
    """Return the run key, 12 hexadecimal digits.

    Args:
        config: The nested mapping of a config (`to_dict`), with the method's knobs typed by its `Settings`.
        data_digest: Hash of the data's content.
        method_version: The method's `version`.
        method_defaults: The defaults of its `Settings` as a mapping.
    """
    method = dict(config["method"])
    others = {key: value for key, value in config.items() if key != "method"}
    changed = dict(_changed(others, _defaults(Config), ""))
    changed |= dict(_changed(method, dict(method_defaults or {}), "method", deep=False))
    identity = {"changed": changed, "data": data_digest}
    identity |= {"method": method["name"], "method_version": method_version}
    text = json.dumps(_canonical(identity), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@cache
def _defaults(schema: type) -> Mapping[str, Any]:
    return to_dict(schema())


def run_folder(config: Config, key: str) -> Path:
    """Return `run_dir` if given, else runs_root/<experiment>/<key> with suffixes for its variants."""
    if config.run_dir is not None:
        return Path(config.run_dir)
    cell = _plain(f"{config.model.name}-{config.data.name}-{config.method['name']}")
    folder = Path(config.runs_root) / (config.experiment_name or cell)
    return folder / "-".join([key, *_variants(config)])


def _variants(config: Config) -> Iterator[str]:
    trainer = config.trainer
    if trainer.precision != "fp32":
        yield trainer.precision
    if trainer.compile:
        yield "compile"
    if trainer.devices > 1:
        yield f"x{trainer.devices}"
    if trainer.threads is not None:
        yield f"threads{trainer.threads}"
    if config.fork_from is not None:
        origin = os.path.realpath(config.fork_from)  # unlike Path.resolve, it terminates on a loop of links
        yield f"fork-{hashlib.sha256(origin.encode()).hexdigest()[:6]}"


def _changed(
    values: Mapping[str, Any], defaults: Mapping[str, Any], where: str, deep: bool = True
) -> Iterator[tuple[str, Any]]:
    """Yield dotted key and value of hashed fields that differ from their defaults.

    Recurse into sections of the schema, not into mappings that are values.
    """
    for key, value in values.items():
        path, default = f"{where}.{key}" if where else key, defaults.get(key)
        if path in NOT_IN_KEY:
            continue
        if deep and isinstance(default, Mapping) and default:
            yield from _changed(value, default, path)
        elif value != default and _canonical(value) != _canonical(default):  # the quick look first
            yield path, value


def _canonical(value: Any) -> Any:
    """Return a canonical form of equal values: 1.0 becomes 1, a tuple a list."""
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)
