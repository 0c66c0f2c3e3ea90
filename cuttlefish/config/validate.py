"""Convert nested mappings to the frozen dataclasses of the schema and back, without Hydra and torch.

pydantic checks types and keys strictly, in JSON mode: values must fit into a resolved.yaml. Ranges and
contradictions are defined with the fields (`cuttlefish.limits`). Every mistake raises a CuttlefishError of
one sentence that names the dotted key, what would be right, and the nearest valid word.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import lru_cache
from math import isfinite
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from cuttlefish.config.schema import Config, DataConfig
from cuttlefish.config.suggest import choose_from, did_you_mean
from cuttlefish.errors import CuttlefishError
from cuttlefish.limits import Checked, OptionsOf, arms_of, describe, shown

T = TypeVar("T")
DEEPEST = 50
"""Maximum depth of nesting in a config."""


def load_config(mapping: Mapping[str, Any]) -> Config:
    """Return a run's checked config; missing keys have their defaults.

    Keys of `data` that only some kinds have become its `settings`, which the kind's `DataSet` checks.
    """
    data = mapping.get("data") if isinstance(mapping, Mapping) else None
    if isinstance(data, Mapping):
        shared = {field.name for field in fields(DataConfig)} - {"settings"}
        own = {key: value for key, value in data.items() if key not in shared}
        data = {key: value for key, value in data.items() if key in shared} | {"settings": own}
        mapping = {**mapping, "data": data}
    return convert(mapping, Config, "")


def build_settings(cls: type[T], mapping: Mapping[str, Any], where: str = "method") -> T:
    """Return a method's Settings from its resolved mapping, ignoring its `name` and `preset`."""
    own = {field.name for field in fields(cls)}
    settings = {key: value for key, value in mapping.items() if key in own or key not in ("name", "preset")}
    return convert(settings, cls, where)


def to_dict(config: Any) -> dict[str, Any]:
    """Return the nested mapping of a config: `load_config(to_dict(config)) == config`."""
    values = asdict(config)
    if isinstance(config, Config):
        values["data"] |= values["data"].pop("settings")
    return values


def convert(value: Any, kind: Any, where: str) -> Any:
    """Return `value` as a `kind`; whole numbers are accepted as floats, nothing else is coerced.

    Args:
        value: Mappings, lists, text, numbers, true, false or null.
        kind: A type annotation.
        where: The dotted key of the value, for error messages; "" for a whole config.

    Raises:
        CuttlefishError: A key is unknown or missing, a value is wrong, or values contradict each other.
    """
    converted = _typed(value, kind, where)
    if isinstance(converted, Checked):
        converted.check(where)
        _check_options(converted, where)
    return converted


def _typed(value: Any, kind: Any, where: str) -> Any:
    _check_plain(value, where)
    try:
        return _adapter(kind).validate_json(json.dumps(value, default=dict), strict=True, extra="forbid")
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        worst = min(
            found, key=lambda each: (each["type"] != "unexpected_keyword_argument", -len(each["loc"]))
        )
        raise CuttlefishError(_sentence(worst, kind, where)) from None


@lru_cache(maxsize=512)
def _adapter(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind)


def _check_options(settings: Any, where: str) -> None:
    """Check mappings that override fields of another class, before that class is built from them."""
    for name, kind in _hints(type(settings)).items():
        for mark in getattr(kind, "__metadata__", ()):
            if isinstance(mark, OptionsOf):
                key = _join(where, name)
                _typed(getattr(settings, name), mark.kind, key).check(key, contradictions=False)


def _check_plain(value: Any, where: str, depth: int = 0) -> None:
    """Raise CuttlefishError for a value that a resolved.yaml cannot hold."""
    problem = None
    if depth > DEEPEST:
        raise CuttlefishError(f"{where[:60]} is nested too deep")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_plain(key, f"a key of {where or 'the config'}", depth)
            _check_plain(item, _join(where, key), depth + 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_plain(item, f"{where}[{index}]", depth + 1)
    elif isinstance(value, float) and not isfinite(value):
        problem = "a number"
    elif isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        problem = "text in UTF-8"
    elif isinstance(value, int) and abs(value) >= 10**1000:
        problem = "a number of fewer digits"
    elif not (value is None or isinstance(value, str | int | float)):
        problem = "text, a number, true, false, null, a list or a mapping"
    if problem:
        raise CuttlefishError(f"{where or 'the config'} must be {problem}, not {shown(value)}")


def _sentence(error: Mapping[str, Any], kind: Any, where: str) -> str:
    """Return an error of pydantic as a sentence."""
    steps, missing = list(error["loc"]), error["type"] == "missing"
    if error["type"] == "unexpected_keyword_argument":
        key = steps.pop()
        where, kind = _trail(steps, kind, where)[-1]
        return f"there is no key {_join(where, key)}{_other_keys(key, _hints(kind), where)}"
    too_short = missing and isinstance(steps[-1], int)  # report the list, not its missing item
    where, kind = _trail(steps, kind, where)[-2 if too_short else -1]
    if missing and not too_short:
        return f"{where} must be given ({describe(kind)})"
    value = error["input"]
    hint = did_you_mean(value, _words(kind)) if isinstance(value, str) else ""
    return f"{where or 'the config'} must be {describe(kind)}, not {shown(value)}{hint}"


def _trail(steps: list[str | int], kind: Any, where: str) -> list[tuple[str, Any]]:
    """Return each dotted key along pydantic's error location, with its annotation.

    In a union the location also names the alternative; follow it if a container's content is wrong.
    """
    trail = [(where, kind)]
    for place, step in enumerate(steps):
        arms = [arm for arm in arms_of(kind) if arm is not NoneType]
        if len(arms) > 1 and place == len(steps) - 1:
            break
        if len(arms) > 1:
            origins = (list, tuple) if isinstance(steps[place + 1], int) else (dict, None)
            kind = next(
                arm for arm in arms if get_origin(arm) in origins and arm not in (int, float, str, bool)
            )
        else:
            where = f"{where}[{step}]" if isinstance(step, int) else _join(where, step)
            kind = _inside(arms[0], step)
        trail.append((where, kind))
    return trail


def _inside(kind: Any, step: str | int) -> Any:
    """Return the annotation of a field, an item or a mapping's value."""
    inner = get_args(kind)
    if is_dataclass(kind):
        return _hints(kind)[step]
    if get_origin(kind) is tuple and Ellipsis not in inner:
        return inner[min(step, len(inner) - 1)]
    return inner[-1] if get_origin(kind) is dict else inner[0]


def _words(kind: Any) -> list[Any]:
    return [word for arm in arms_of(kind) if get_origin(arm) is Literal for word in get_args(arm)]


def _other_keys(key: Any, kinds: Mapping[str, Any], where: str) -> str:
    hint = did_you_mean(key, kinds)
    return hint.replace("mean ", f"mean {where}." if where else "mean ") if hint else choose_from(key, kinds)


@lru_cache(maxsize=512)
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)
