"""`resolved.yaml`: a run's whole config, runnable on another machine.

Without PyYAML it is written and read as JSON, which is also YAML.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cuttlefish.errors import CuttlefishError

RESOLVED = "resolved.yaml"
RENAMED = {"sink": "logger"}
"""Old section name -> current name."""
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
"""Numbers with an exponent, which YAML 1.1 reads as text unless they have a dot and a sign (1.0e-2)."""


def dump(mapping: Mapping[str, Any]) -> str:
    """Return the text of a resolved.yaml for a mapping."""
    try:
        import yaml
    except ImportError:
        return json.dumps(mapping, indent=2) + "\n"
    return yaml.dump(dict(mapping), Dumper=_with_numbers(yaml.SafeDumper), sort_keys=False)


def load(path: str | Path) -> dict[str, Any]:
    """Return the mapping in a resolved config.

    Raises:
        CuttlefishError: The file is missing or not a mapping.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # a named pipe could block forever
            raise OSError("it is no regular file")
        mapping = _parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CuttlefishError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(mapping, dict):
        raise CuttlefishError(f"{path} is not a resolved config: it holds no mapping")
    return in_present_words(mapping)


def in_present_words(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the sections of an earlier version's config to the current names."""
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
        return yaml.load(text, Loader=_with_numbers(yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _with_numbers(base: type) -> type:
    """Return a PyYAML loader or dumper that reads 1e-2 as a number and quotes it as text."""
    kind = type(base.__name__, (base,), {})
    kind.add_implicit_resolver("tag:yaml.org,2002:float", NUMBER, list("-+.0123456789"))
    return kind
