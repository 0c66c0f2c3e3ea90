"""`resolved.yaml`: a run's whole config, which another machine can run. Without PyYAML it is written and read as JSON, which is YAML too."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cuttlefish.errors import CuttlefishError

RESOLVED = "resolved.yaml"
RENAMED = {"sink": "logger"}
"""What sections of a config were called in earlier versions."""


def dump(mapping: Mapping[str, Any]) -> str:
    try:
        import yaml
    except ImportError:
        return json.dumps(mapping, indent=2) + "\n"
    return yaml.safe_dump(dict(mapping), sort_keys=False)


def load(path: str | Path) -> dict[str, Any]:
    """The mapping in a resolved config. Raises CuttlefishError if it is missing or holds none."""
    try:
        mapping = _parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CuttlefishError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(mapping, dict):
        raise CuttlefishError(f"{path} is not a resolved config: it holds no mapping")
    return in_present_words(mapping)


def in_present_words(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's config, maybe of an earlier version, with its sections called as they are now."""
    return {RENAMED.get(key, key): value for key, value in config.items()}


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        import yaml
    except ImportError:
        raise ValueError("it is YAML, and PyYAML is not installed") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
