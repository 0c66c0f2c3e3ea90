"""What is wrong with the fields of a record: types, ranges, what is missing, what contradicts itself."""

import json
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from reprlib import repr as short
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cuttlefish.record.fields import FIELDS, SCHEMA, Record

STATUSES = ("finished", "failed", "interrupted")
SCALES = ("smoke", "reduced", "paper", "free")
DEEPEST = 100
POSITIVE = (
    "epochs", "epochs_trained", "params_full", "params_total", "params_nonzero", "params_stored_bits",
    "macs_full",
    "macs_final",
)  # fmt: skip
"""Fields that are at least 1 in a finished run, because tables and claims divide by them."""

NOT_WRITABLE = "it holds text or numbers that no file can: lone surrogates, NaN"
INSIDE = {
    "ranks": "a rank is not a whole number of at least 1",
    "seconds": "seconds are not a number each",
    "metrics": "metrics are not a number each",
    "metrics_best": "metrics_best are not a number each",
    "phases": "phases are not a mapping each",
}
"""Error message for a wrong value inside a field."""
OUT_OF_RANGE = {
    "finite_number": "{name} is {value}, not a finite number",
    "less_than": "{name} is beyond 64 bits",
    "greater_than": "{name} is beyond 64 bits",
    "greater_than_equal": "{name} is negative ({value})",
}
EXPECTED = {"string": "str", "float": "int or float"}


def problems_of(values: Mapping[str, Any]) -> list[str]:
    """Return the problems of a record's fields, one sentence each. A null field counts as absent."""
    return type_problems(values) or _missing(values) or _contradictions(Record(**values))


def _missing(values: Mapping[str, Any]) -> list[str]:
    always = "always", "finished" if values.get("status") == "finished" else "always"
    needed = [name for name, one in FIELDS.items() if one.metadata["needed"] in always]
    return [f"{name} is missing" for name in needed if values.get(name) is None]


@cache
def _adapter() -> TypeAdapter[Record]:
    return TypeAdapter(Record)


def type_problems(values: Mapping[str, Any]) -> list[str]:
    """Return unknown fields and values of the wrong type, one sentence each."""
    if values.get("schema") != SCHEMA:
        return [f"schema is {short(values.get('schema'))}, not {SCHEMA}"]
    present = {name: value for name, value in values.items() if value is not None}
    try:
        _adapter().validate_python(present)
    except ValidationError as found:
        return list(dict.fromkeys(map(_sentence, found.errors(include_url=False))))
    if _is_too_deep(present):
        return [f"it is nested more than {DEEPEST} levels deep"]
    return [] if _is_writable(present) else [NOT_WRITABLE]


def _sentence(error: Mapping[str, Any]) -> str:
    """Return an error of pydantic as a sentence."""
    name, *inside = error["loc"]
    kind, value = error["type"], short(error["input"])
    if kind == "unexpected_keyword_argument":
        near = get_close_matches(name, FIELDS, n=1)
        return f"unknown field {name!r}" + (f" (did you mean {near[0]!r}?)" if near else "")
    if kind == "string_unicode":
        return NOT_WRITABLE
    if "milestones" in inside:
        return "config.recipe.schedule.milestones are not fractions of the run"
    if inside:
        return INSIDE.get(name, f"{'.'.join(map(str, error['loc']))} is not a mapping")
    if kind in OUT_OF_RANGE:
        return OUT_OF_RANGE[kind].format(name=name, value=value)
    expected = kind.removesuffix("_type")
    return f"{name} is {value}, not of type {EXPECTED.get(expected, expected)}"


def _is_too_deep(values: Mapping[str, Any]) -> bool:
    level: list[Any] = [values]
    for _ in range(DEEPEST):
        inner = [
            one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)
        ]
        level = [value for values in inner for value in values]
    return bool(level)


def _is_writable(values: Mapping[str, Any]) -> bool:
    try:
        json.dumps(values, ensure_ascii=False, allow_nan=False, default=str).encode()
    except (ValueError, RecursionError):
        return False
    return True


def _contradictions(record: Record) -> list[str]:
    finished = record.status == "finished"
    measured = record.accuracy_final is not None or record.metrics
    rules = {
        f"status is {record.status!r}, not one of {', '.join(STATUSES)}": record.status not in STATUSES,
        f"scale is {record.scale!r}, not one of {', '.join(SCALES)}": record.scale not in SCALES,
        "a failed run needs its error": record.status == "failed" and not record.error,
        "a finished run cannot have an error": finished and bool(record.error),
        "a finished run needs accuracy_final or metrics": finished and not measured,
        "accuracy_final is above 100 percent": _exceeds(record.accuracy_final, 100),
        "accuracy_best is above 100 percent": _exceeds(record.accuracy_best, 100),
        "accuracy_best is below accuracy_final": _exceeds(record.accuracy_final, record.accuracy_best),
        "more parameters are trainable than there are": _exceeds(
            record.params_trainable, record.params_total
        ),
        "the switch came after the last epoch": _exceeds(record.switch_epoch, record.epochs_trained),
        "compute_seconds exceed wall_seconds": _exceeds(record.compute_seconds, record.wall_seconds),
    }
    empty = [f"{name} of a finished run is 0" for name in POSITIVE if finished and getattr(record, name) == 0]
    return [sentence for sentence, broken in rules.items() if broken] + empty


def _exceeds(smaller: float | None, larger: float | None) -> bool:
    return smaller is not None and larger is not None and smaller > larger
