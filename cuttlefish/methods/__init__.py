"""Load methods by name: a method is a module of that name in `cuttlefish.methods` or `baselines`."""

import re
from importlib import import_module, util
from typing import Any

from cuttlefish.config.schema import RecipeConfig
from cuttlefish.config.validate import build_settings
from cuttlefish.errors import CuttlefishError
from cuttlefish.methods.base import Method


def load_method(name: str) -> type[Method]:
    """Return the Method subclass called `name`. Raises CuttlefishError if there is none."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise CuttlefishError(
            f"method.name={name!r} is not a method's name: lower-case letters, digits and underscores"
        )
    for package in ("cuttlefish.methods", "baselines"):
        if util.find_spec(package) is not None and util.find_spec(f"{package}.{name}") is not None:
            module = import_module(f"{package}.{name}")
            found = [
                item
                for item in vars(module).values()
                if isinstance(item, type) and getattr(item, "name", None) == name
            ]
            if found:
                return found[0]
    raise CuttlefishError(
        f"there is no method {name!r}: neither cuttlefish/methods/{name}.py nor baselines/{name}.py defines "
        "it"
    )


def build_method(resolved: dict[str, Any]) -> Method:
    """Build a method from a resolved config: `name` and the knobs that differ from its Settings' defaults."""
    method = load_method(resolved["name"])
    knobs = {key: value for key, value in resolved.items() if key not in ("name", "preset")}
    return method(build_settings(method.Settings, knobs))


def planned_epochs(resolved: dict[str, Any], recipe: RecipeConfig) -> int | None:
    """Return the epochs a method trains under `recipe`; None if they depend on the model. Builds no model."""
    method = load_method(resolved["name"])
    return method.planned_epochs(build_method(resolved).settings, recipe)
