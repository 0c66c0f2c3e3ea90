"""Load methods by name: a module in `cuttlefish.methods` or `baselines`, or a folder with a module `method`.

Needs no torch before a method is loaded; the settings of one in a folder need none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module, util
from typing import TYPE_CHECKING, Any

from cuttlefish.config.recipe import RecipeConfig
from cuttlefish.config.validate import build_settings
from cuttlefish.errors import CuttlefishError
from cuttlefish.limits import Checked

if TYPE_CHECKING:
    from cuttlefish.methods.base import Method


def load_method(name: str) -> type[Method]:
    """Return the Method subclass called `name`. Raises CuttlefishError if there is none."""
    home, is_folder = _home(name)
    module = import_module(f"{home}.method" if is_folder else home)
    for item in vars(module).values():
        if isinstance(item, type) and getattr(item, "name", None) == name:
            return item
    raise _missing(name)


def load_settings(name: str) -> type[Checked]:
    """Return the dataclass of a method's knobs. Raises CuttlefishError if there is no such method."""
    home, is_folder = _home(name)
    return import_module(f"{home}.settings").Settings if is_folder else load_method(name).Settings


def check_knobs(resolved: Mapping[str, Any], epochs: int | None = None) -> Checked:
    """Return the typed settings of a resolved config's `method`: its `name` and the knobs that are not null.

    Args:
        epochs: Those of the recipe, to check that settings lie within the run.

    Raises:
        CuttlefishError: There is no such method, or a knob is unknown or wrong.
    """
    settings = build_settings(load_settings(resolved["name"]), resolved)
    for sentence in settings.outside(epochs) if epochs is not None else ():
        raise CuttlefishError(f"method.{sentence}")
    return settings


def build_method(resolved: Mapping[str, Any]) -> Method:
    """Build a method from a resolved config's `method`."""
    return load_method(resolved["name"])(check_knobs(resolved))


def planned_epochs(resolved: Mapping[str, Any], recipe: RecipeConfig) -> int | None:
    """Return the epochs a method trains under `recipe`; None if they depend on the model. Builds no model."""
    return load_method(resolved["name"]).planned_epochs(check_knobs(resolved), recipe)


def _home(name: str) -> tuple[str, bool]:
    """Return the dotted name of a method's module or folder, and whether it is a folder."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise CuttlefishError(
            f"method.name={name!r} is not a method's name: lower-case letters, digits and underscores"
        )
    for package in ("baselines", "cuttlefish.methods"):
        found = util.find_spec(package) and util.find_spec(f"{package}.{name}")
        if found:
            return found.name, found.submodule_search_locations is not None
    raise _missing(name)


def _missing(name: str) -> CuttlefishError:
    return CuttlefishError(
        f"there is no method {name!r}: neither cuttlefish/methods/{name} nor baselines/{name} defines it"
    )
