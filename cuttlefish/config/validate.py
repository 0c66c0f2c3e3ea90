"""From plain nested mappings to the frozen dataclasses of the schema, and back. Needs neither Hydra nor torch.

Every mistake ends in a CuttlefishError that names the dotted key, what would be right, and the nearest valid word.
"""

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from cuttlefish.config.checks import check_config
from cuttlefish.config.schema import Config
from cuttlefish.config.suggest import choose_from, did_you_mean
from cuttlefish.errors import CuttlefishError

T = TypeVar("T")


def load_config(mapping: Mapping[str, Any]) -> Config:
    """A whole run's config; what is left out has its default. Types, keys and contradictions are checked."""
    config = _build(Config, mapping, "")
    check_config(config)
    return config


def build_settings(cls: type[T], mapping: Mapping[str, Any], where: str = "method") -> T:
    """A method's Settings from its resolved mapping, whose `name` and `preset` belong to the run and are skipped."""
    own = {field.name for field in fields(cls)}
    knobs = {key: value for key, value in mapping.items() if key in own or key not in ("name", "preset")}
    return _build(cls, knobs, where)


def to_dict(config: Any) -> dict[str, Any]:
    """The nested mapping of a config: `load_config(to_dict(config)) == config`."""
    return asdict(config)


def convert(value: Any, kind: Any, where: str) -> Any:
    """`value` as a `kind` (a type annotation): whole numbers pass as floats, nothing else is bent into shape."""
    origin = get_origin(kind)
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _build(kind, value, where)
    if origin in (Union, UnionType):
        return _union(value, kind, where)
    if origin in (list, tuple, dict):
        return _container(value, kind, where)
    if not _fits(value, kind):
        raise _wrong(value, kind, where)
    return float(value) if kind is float else value


def _build(cls: type[T], mapping: Any, where: str) -> T:
    if not isinstance(mapping, Mapping):
        raise _wrong(mapping, cls, where)
    kinds = get_type_hints(cls)
    for key in mapping:
        if key not in kinds:
            raise CuttlefishError(f"there is no key {_join(where, key)}{_other_keys(key, kinds, where)}")
    for field in fields(cls):
        if field.name not in mapping and field.default is MISSING and field.default_factory is MISSING:
            raise CuttlefishError(
                f"{_join(where, field.name)} must be given ({_describe(kinds[field.name])})"
            )
    return cls(**{key: convert(value, kinds[key], _join(where, key)) for key, value in mapping.items()})


def _union(value: Any, kind: Any, where: str) -> Any:
    arms = sorted(
        get_args(kind), key=lambda arm: arm is float
    )  # a whole number stays one where both would do
    for arm in arms:
        try:
            return convert(value, arm, where)
        except CuttlefishError as error:
            if _shape(arm) is not None and isinstance(
                value, _shape(arm)
            ):  # right container, wrong content: the inner sentence says more
                raise error
    raise _wrong(value, kind, where)


def _container(value: Any, kind: Any, where: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if not isinstance(value, _shape(kind)):
        raise _wrong(value, kind, where)
    if origin is dict:
        return {
            convert(key, inner[0], where): convert(item, inner[1], _join(where, key))
            for key, item in value.items()
        }
    kinds = inner if origin is tuple and Ellipsis not in inner else (inner[0],) * len(value)
    if len(kinds) != len(value):
        raise _wrong(value, kind, where)
    return origin(
        convert(item, item_kind, f"{where}[{i}]")
        for i, (item, item_kind) in enumerate(zip(value, kinds, strict=True))
    )


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(kind))
    if kind in (None, NoneType):
        return value is None
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, kind)


def _shape(kind: Any) -> Any:
    """The types of value that a container or dataclass annotation takes; None for the others."""
    if is_dataclass(kind) or get_origin(kind) is dict:
        return Mapping
    return (list, tuple) if get_origin(kind) in (list, tuple) else None


def _describe(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(_describe(arm) for arm in sorted(inner, key=lambda arm: arm is NoneType))
    if origin is Literal:
        return inner[0] if len(inner) == 1 else f"one of {', '.join(map(str, inner))}"
    if origin is tuple and Ellipsis not in inner:
        return f"a list of {len(inner)}"
    if origin in (list, tuple):
        return f"a list (each {_describe(inner[0])})"
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a string",
        NoneType: "null",
    }
    return names.get(kind, "a mapping")


def _wrong(value: Any, kind: Any, where: str) -> CuttlefishError:
    shown = (
        {None: "null", True: "true", False: "false"}.get(value)
        if value is None or isinstance(value, bool)
        else repr(value)
    )
    if len(shown) > 60:
        shown = f"{shown[:57]}..."
    hint = did_you_mean(value, _words(kind)) if isinstance(value, str) else ""
    return CuttlefishError(f"{where or 'the config'} must be {_describe(kind)}, not {shown}{hint}")


def _words(kind: Any) -> list[Any]:
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [word for arm in get_args(kind) for word in _words(arm)]


def _other_keys(key: Any, kinds: Mapping[str, Any], where: str) -> str:
    hint = did_you_mean(key, kinds)
    return hint.replace("mean ", f"mean {where}." if where else "mean ") if hint else choose_from(key, kinds)


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)
