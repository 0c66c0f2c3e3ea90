"""The fields of `record.json` as a frozen `Record`, and the checks of a valid record."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from reprlib import repr as short
from typing import Annotated, Any

from pydantic import ConfigDict, Field, Strict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

SCHEMA = 1
STATUSES = ("finished", "failed", "interrupted")
SCALES = ("smoke", "reduced", "paper", "free")
LARGEST = 2**63
DEEPEST = 100
POSITIVE = (
    "epochs", "epochs_trained", "params_full", "params_total", "params_nonzero", "params_stored_bits",
    "macs_full",
    "macs_final",
)  # fmt: skip
"""Fields that are at least 1 in a finished run, because tables and claims divide by them."""

Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]
Int = Annotated[int, Strict(), Field(lt=LARGEST)]
Whole = Annotated[Int, Field(gt=-LARGEST)]
Count = Annotated[Int, Field(ge=0)]
Rank = Annotated[Int, Field(ge=1)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Amount = Annotated[Number, Field(ge=0)]
Bounded = Annotated[Number, Field(gt=-LARGEST, lt=LARGEST)]
Seconds = Annotated[Number, Field(ge=0, lt=LARGEST)]
Share = Annotated[Number, Field(ge=0, le=1)]
Mapped = dict[str, Any]


@with_config(extra="allow")
class Schedule(TypedDict, total=False):
    milestones: list[Share] | None


@with_config(extra="allow")
class Recipe(TypedDict, total=False):
    schedule: Schedule | None


@with_config(extra="allow")
class Settings(TypedDict, total=False):
    """Keys in a record's config that its readers rely on."""

    model: Mapped | None
    data: Mapped | None
    recipe: Recipe | None
    method: Mapped | None
    trainer: Mapped | None


def _field(needed: str, default: Any = None) -> Callable[[str], Any]:
    return lambda meaning: field(default=default, metadata={"needed": needed, "meaning": meaning})


_always, _finished, _known = map(_field, ("always", "finished", "where known"))


@dataclass(frozen=True, kw_only=True)
class Record:
    """Result and provenance of one run. Each field has a type, when it is required, and a meaning.

    The constructor checks nothing, so that every run that ends can be recorded. `problems_of` checks.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    schema: Whole = _field("always", SCHEMA)("version of this list")
    status: Text = _always("finished, failed or interrupted")
    error: Text | None = _known("the traceback of a failed run")
    run_key: Text = _always("hash of everything that changes the result")
    model: Text = _always("name")
    data: Text = _always("name")
    method: Text = _always("name")
    recipe: Text = _always("name")
    preset: Text | None = _known("the method's preset: reference, paper, …")
    seed: Whole = _always("")
    epochs: Count = _always("epochs of the recipe")
    scale: Text = _always("what the run may stand for: smoke, reduced, paper or free")
    experiment_name: Text | None = _known("the table or figure it was run for")
    forked_from: Text | None = _known("run key of the run whose state this one started from")
    target: Mapped | None = _known("what a size-matched method was to meet, and where that came from")
    config: Settings | None = _known("the resolved config, without secrets and folders")
    epochs_trained: Count | None = _finished("over all phases, from scratch")
    phases: list[Mapped] | None = _finished("one mapping a phase: name, epochs, seconds, …")
    accuracy_final: Amount | None = _known("of the last epoch, percent: the headline")
    accuracy_best: Amount | None = _known("of the best epoch, chosen on the evaluated set, percent")
    metric: Text | None = _known("name of the headline metric; accuracy where there is none")
    metrics: dict[str, Bounded] | None = _known("every metric of the last epoch by name")
    metrics_best: dict[str, Bounded] | None = _known("the best of each metric, chosen on the evaluated set")
    loss_final: Number | None = _known("of the last epoch, on the evaluated set")
    params_full: Count | None = _finished("all parameters of the full-rank model")
    params_total: Count | None = _finished("all parameters, frozen ones too")
    params_trainable: Count | None = _finished("")
    params_nonzero: Count | None = _finished("")
    params_stored_bits: Count | None = _finished("bits to store the model")
    gradient_bytes_full: Count | None = _known("of a step at full rank: what several processes all-reduce")
    gradient_bytes_final: Count | None = _known("the same at the end")
    macs_full: Count | None = _finished("multiply-accumulates of one example through the full-rank model")
    macs_final: Count | None = _finished("the same at the end")
    switch_epoch: Count | None = _known("E: full-rank epochs before the switch")
    switch_step: Count | None = _known("full-rank optimizer steps before the switch")
    switch_reason: Text | None = _known("why the model was switched then, or never")
    k: Count | None = _known("K: leading layers left full-rank")
    ranks: dict[str, Rank] | None = _known("factorized layer -> rank")
    on_floor: list[Text] | None = _known("factorized layers whose rank is the floor's, where there is one")
    profile: Mapped | None = _known("summary of profile.json")
    compute_seconds: Amount | None = _finished(
        "device time of all training work and the method's own, all phases"
    )
    wall_seconds: Amount | None = _finished("everything, work lost to crashes too")
    seconds: dict[str, Seconds] | None = _finished("by part")
    peak_memory_bytes: Count | None = _known("of the device")
    device: Text = _always("the hardware's name")
    device_type: Text | None = _known("cpu, cuda, …; of an older record by its device's name")
    precision: Text = _always("fp32, tf32, bf16 or fp64")
    threads: Count | None = _known("CPU threads torch computes with")
    world_size: Count = _always("processes")
    git_commit: Text | None = _known("")
    git_dirty: Flag | None = _known("whether the code differed from that commit")
    packages: Mapped = _always("name -> version")
    platform: Text | None = _known("operating system")
    python: Text | None = _known("version")
    data_digest: Text = _always("hash of the data files' content")
    command: Text = _always("as typed, without secrets and folders")
    started: Text = _always("ISO 8601, UTC")
    extra: Mapped | None = _known("a method's own fields")

    def __post_init__(self) -> None:
        if self.device_type is None and isinstance(self.device, str):
            object.__setattr__(self, "device_type", device_type_of(self.device))

    @property
    def headline(self) -> str:
        """Name of the headline metric."""
        return self.metric or "accuracy"

    @property
    def score(self) -> float | None:
        """The headline metric of the last epoch."""
        return self.accuracy_final if self.headline == "accuracy" else (self.metrics or {}).get(self.metric)

    @property
    def score_best(self) -> float | None:
        """The headline metric of the best epoch, chosen on the evaluated set."""
        return (
            self.accuracy_best if self.headline == "accuracy" else (self.metrics_best or {}).get(self.metric)
        )

    @property
    def on_cpu(self) -> bool:
        return self.device_type == "cpu"


def device_type_of(name: str) -> str:
    """Return cpu or cuda for a hardware name from `device_name`: a CPU's ends with its number of cores."""
    return "cpu" if re.search(r", \d+ cores?$", name) else "cuda"


FIELDS = {one.name: one for one in fields(Record)}
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
