"""A method's preset and the user's knobs, merged into what the method will be run with.

conf/method/<name>.yaml lists every knob as null ("as the preset says") beside `presets`, `models` and `smoke`.
Least to most specific: the preset; `models` of the file; `models`, then `data` of the preset; `smoke`; the user.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from cuttlefish.config.suggest import choose_from, did_you_mean
from cuttlefish.errors import CuttlefishError

NOT_KNOBS = ("name", "preset", "presets", "models", "smoke")
SPECIFIC = ("models", "data")
"""Keys of a preset that hold further knobs, by model and by data set."""


def resolve_method(
    method: Mapping[str, Any], model_name: str, data_name: str, scale: str = "free"
) -> dict[str, Any]:
    """{name, preset, knobs that are not null}. A mapping without `presets` is resolved already; only its nulls go.

    Raises CuttlefishError for an unknown preset, and for a preset that sets a knob which the file does not list.
    """
    knobs = {key: value for key, value in method.items() if key not in NOT_KNOBS}
    resolved = {key: method[key] for key in ("name", "preset") if method.get(key) is not None}
    for where, layer in _layers(method, model_name, data_name, scale):
        _check_known(layer, knobs, where)
        resolved |= layer
    resolved |= {key: value for key, value in knobs.items() if value is not None}
    return {key: value for key, value in resolved.items() if value is not None}


def _layers(
    method: Mapping[str, Any], model: str, data: str, scale: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, its knobs), least specific first."""
    if "presets" not in method:
        return
    name, presets, chosen = method.get("name"), method["presets"] or {}, method.get("preset")
    if chosen not in presets:
        raise CuttlefishError(f"method.preset: {name} has no preset {chosen}{choose_from(chosen, presets)}")
    preset, where = presets[chosen] or {}, f"preset {chosen} of method {name}"
    yield where, {key: value for key, value in preset.items() if key not in SPECIFIC}
    yield f"models.{model} of method {name}", _entry(method, "models", model)
    yield f"{where} for model {model}", _entry(preset, "models", model)
    yield f"{where} for data {data}", _entry(preset, "data", data)
    if scale == "smoke":
        yield f"smoke of method {name}", dict(method.get("smoke") or {})


def _entry(mapping: Mapping[str, Any], key: str, name: str) -> dict[str, Any]:
    return dict((mapping.get(key) or {}).get(name) or {})


def _check_known(layer: Mapping[str, Any], knobs: Mapping[str, Any], where: str) -> None:
    for key in layer:
        if key not in knobs:
            raise CuttlefishError(
                f"{where} sets {key}, which the method's file does not list as a knob{did_you_mean(key, knobs)}"
            )
