"""The fields of `record.json`, and what makes a record a sound one."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite
from typing import Any, Literal

SCHEMA = 1
STATUSES = ("finished", "failed", "interrupted")
SCALES = ("smoke", "reduced", "paper", "free")
Number = int | float
LARGEST = 2**63
POSITIVE = (
    "epochs",
    "epochs_trained",
    "params_full",
    "params_total",
    "params_nonzero",
    "params_stored_bits",
    "macs_full",
    "macs_final",
)
"""What a finished run has at least one of: tables and claims divide by it."""
SECTIONS = ("model", "data", "recipe", "method", "trainer")


@dataclass(frozen=True)
class Field:
    """A field's type, when it must be there, and what it means."""

    type: Any
    needed: Literal["always", "finished", "where known"]
    meaning: str


FIELDS: dict[str, Field] = {
    "schema": Field(int, "always", "version of this list"),
    "status": Field(str, "always", "finished, failed or interrupted"),
    "error": Field(str, "where known", "the traceback of a failed run"),
    "run_key": Field(str, "always", "hash of everything that changes the result"),
    "model": Field(str, "always", "name"),
    "data": Field(str, "always", "name"),
    "method": Field(str, "always", "name"),
    "recipe": Field(str, "always", "name"),
    "preset": Field(str, "where known", "the method's preset: reference, paper, …"),
    "seed": Field(int, "always", ""),
    "epochs": Field(int, "always", "epochs of the recipe"),
    "scale": Field(str, "always", "what the run may stand for: smoke, reduced, paper or free"),
    "experiment_name": Field(str, "where known", "the table or figure it was run for"),
    "forked_from": Field(str, "where known", "run key of the run whose state this one started from"),
    "target": Field(dict, "where known", "what a size-matched method was to meet, and where that came from"),
    "config": Field(dict, "where known", "the resolved config, without secrets and folders"),
    "epochs_trained": Field(int, "finished", "over all phases, from scratch"),
    "phases": Field(list, "finished", "one mapping a phase: name, epochs, seconds, …"),
    "accuracy_final": Field(Number, "where known", "of the last epoch, percent: the headline"),
    "accuracy_best": Field(Number, "where known", "of the best epoch, chosen on the evaluated set, percent"),
    "metrics": Field(dict, "where known", "the task's own metrics in place of accuracy (GLUE)"),
    "loss_final": Field(Number, "where known", "of the last epoch, on the evaluated set"),
    "params_full": Field(int, "finished", "all parameters of the full-rank model"),
    "params_total": Field(int, "finished", "all parameters, frozen ones too"),
    "params_trainable": Field(int, "finished", ""),
    "params_nonzero": Field(int, "finished", ""),
    "params_stored_bits": Field(int, "finished", "bits to store the model"),
    "macs_full": Field(int, "finished", "multiply-accumulates of one example through the full-rank model"),
    "macs_final": Field(int, "finished", "the same at the end"),
    "switch_epoch": Field(int, "where known", "E: full-rank epochs before the switch"),
    "switch_reason": Field(str, "where known", "why the model was switched then, or never"),
    "k": Field(int, "where known", "K: leading layers left full-rank"),
    "ranks": Field(dict, "where known", "factorized layer -> rank"),
    "profile": Field(dict, "where known", "summary of profile.json"),
    "compute_seconds": Field(
        Number, "finished", "device time of all training work and of the method's own, all phases"
    ),
    "wall_seconds": Field(Number, "finished", "everything, work lost to crashes too"),
    "seconds": Field(dict, "finished", "by part"),
    "peak_memory_bytes": Field(int, "where known", "of the device"),
    "device": Field(str, "always", "the hardware's name"),
    "precision": Field(str, "always", "fp32, tf32, bf16 or fp64"),
    "threads": Field(int, "where known", "CPU threads torch computes with"),
    "world_size": Field(int, "always", "processes"),
    "git_commit": Field(str, "where known", ""),
    "git_dirty": Field(bool, "where known", "whether the code differed from that commit"),
    "packages": Field(dict, "always", "name -> version"),
    "platform": Field(str, "where known", "operating system"),
    "python": Field(str, "where known", "version"),
    "data_digest": Field(str, "always", "hash of the data files' content"),
    "command": Field(str, "always", "as typed, without secrets and folders"),
    "started": Field(str, "always", "ISO 8601, UTC"),
    "extra": Field(dict, "where known", "a method's own fields"),
}


def problems_of(record: Mapping[str, Any]) -> list[str]:
    """What is wrong with a record, one sentence a problem. A null field counts as absent."""
    if record.get("schema") != SCHEMA:
        return [f"schema is {record.get('schema')!r}, not {SCHEMA}"]
    problems = [_unknown(name) for name in record if name not in FIELDS]
    for name, field in FIELDS.items():
        value = record.get(name)
        if value is None:
            problems += _missing(name, field, record.get("status"))
        else:
            problems += _mistyped(name, field, value)
    return problems or _nested(record) or _contradictions(record)


def _unknown(name: str) -> str:
    near = get_close_matches(name, FIELDS, n=1)
    return f"unknown field {name!r}" + (f" (did you mean {near[0]!r}?)" if near else "")


def _missing(name: str, field: Field, status: Any) -> list[str]:
    needed = field.needed == "always" or (field.needed == "finished" and status == "finished")
    return [f"{name} is missing"] if needed else []


def _mistyped(name: str, field: Field, value: Any) -> list[str]:
    # bool is an int to Python, but not a count
    if not isinstance(value, field.type) or (isinstance(value, bool) and field.type is not bool):
        expected = " or ".join(kind.__name__ for kind in getattr(field.type, "__args__", (field.type,)))
        return [f"{name} is {value!r}, not of type {expected}"]
    if isinstance(value, float) and not isfinite(value):
        return [f"{name} is {value!r}, not a finite number"]
    if isinstance(value, int) and abs(value) >= LARGEST:
        return [f"{name} is beyond 64 bits"]
    if isinstance(value, Number) and value < 0 and name != "seed" and not name.startswith("loss"):
        return [f"{name} is negative ({value!r})"]
    return []


def _nested(record: Mapping[str, Any]) -> list[str]:
    """What the readers of a record take for granted inside its lists and mappings."""
    config = record.get("config") or {}
    unlike = [
        f"config.{name} is not a mapping"
        for name in SECTIONS
        if not isinstance(config.get(name) or {}, Mapping)
    ]
    schedule = (config.get("recipe") or {}).get("schedule") or {} if not unlike else {}
    milestones = (schedule.get("milestones") or []) if isinstance(schedule, Mapping) else None
    rules = {
        "config.recipe.schedule.milestones are not fractions of the run": not isinstance(milestones, list)
        or not all(map(_is_share, milestones)),
        "seconds are not a number each": not all(map(_is_amount, (record.get("seconds") or {}).values())),
        "metrics are not a number each": not all(map(_is_number, (record.get("metrics") or {}).values())),
        "it holds text or numbers that no file can: lone surrogates, NaN": not _is_writable(record),
        "phases are not a mapping each": not all(
            isinstance(phase, Mapping) for phase in record.get("phases") or []
        ),
    }
    return unlike + [sentence for sentence, broken in rules.items() if broken]


def _is_writable(record: Mapping[str, Any]) -> bool:
    try:
        json.dumps(record, ensure_ascii=False, allow_nan=False, default=str).encode()
    except ValueError:
        return False
    return True


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, Number) and not isinstance(value, bool) and abs(value) < LARGEST
    )  # so NaN is none


def _is_amount(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_share(value: Any) -> bool:
    return _is_amount(value) and value <= 1


def _contradictions(record: Mapping[str, Any]) -> list[str]:
    status, scale, error = record["status"], record["scale"], record.get("error")
    finished = status == "finished"
    measured = record.get("accuracy_final") is not None or record.get("metrics")
    ranks = (record.get("ranks") or {}).values()
    rules = {
        f"status is {status!r}, not one of {', '.join(STATUSES)}": status not in STATUSES,
        f"scale is {scale!r}, not one of {', '.join(SCALES)}": scale not in SCALES,
        "a failed run needs its error": status == "failed" and not error,
        "a finished run cannot have an error": finished and bool(error),
        "a finished run needs accuracy_final or metrics": finished and not measured,
        "accuracy_final is above 100 percent": (record.get("accuracy_final") or 0) > 100,
        "accuracy_best is above 100 percent": (record.get("accuracy_best") or 0) > 100,
        "accuracy_best is below accuracy_final": _exceeds(record, "accuracy_final", "accuracy_best"),
        "more parameters are trainable than there are": _exceeds(record, "params_trainable", "params_total"),
        "the switch came after the last epoch": _exceeds(record, "switch_epoch", "epochs_trained"),
        "compute_seconds exceed wall_seconds": _exceeds(record, "compute_seconds", "wall_seconds"),
        "a rank is not a whole number of at least 1": not all(
            type(rank) is int and 1 <= rank < LARGEST for rank in ranks
        ),
    }
    empty = [f"{name} of a finished run is 0" for name in POSITIVE if finished and record[name] == 0]
    return [sentence for sentence, broken in rules.items() if broken] + empty


def _exceeds(record: Mapping[str, Any], smaller: str, larger: str) -> bool:
    known = record.get(smaller) is not None and record.get(larger) is not None
    return known and record[smaller] > record[larger]
