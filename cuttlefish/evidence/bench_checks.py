"""What claims and figures take for granted in a bench, by its kind: a file that lacks it is no bench."""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, Strict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

Text = Annotated[str, Strict()]
Amount = Annotated[float, Strict(), Field(ge=0, lt=2**63, allow_inf_nan=False)]
Positive = Annotated[float, Strict(), Field(gt=1e-12, lt=2**63, allow_inf_nan=False)]
Series = Annotated[list[Positive], Field(min_length=1)]


@with_config(extra="allow")
class Row(TypedDict):
    rounds_s: NotRequired[list[Positive] | None]


class StepRow(Row):
    batch: Positive
    step_s: Positive
    fastest_s: Positive
    slowest_s: Positive
    flops: Positive


class MethodRow(Row):
    params_nonzero: Positive


class RankRow(Row):
    ours_s: Positive


class OverheadRow(Row):
    """One part of the clock: what it takes an epoch of the narrow network, or once a run of the full-width
    one."""

    part: Text
    per: Literal["epoch", "run"]
    width: Positive
    seconds: Amount


class CheckpointRow(Row):
    model: Text
    width: Positive
    images: Positive
    checkpoint_s: Amount


class TimesRow(Row):
    """Seconds at full rank, one a repetition, and at each ratio."""

    full_s: Series
    low_s: list[Series]


class StackRow(TimesRow):
    stack: Text
    layers: list[Any]


class LayerRow(TimesRow):
    layer: Text
    kind: Text


@with_config(extra="allow")
class File(TypedDict):
    hardware: Text
    seconds: NotRequired[Amount]
    rows: list[Row]


class Steps(File):
    rows: list[StepRow]


class Methods(File):
    rows: list[MethodRow]


class Ranks(File):
    rows: list[RankRow]


class Overhead(File):
    rows: list[OverheadRow]


class Checkpoints(File):
    rows: list[CheckpointRow]


class Profile(File):
    profiled: Literal["stacks", "layers"]
    model: Text
    precision: Text
    ratios: Series
    deciding_ratio: Positive
    threshold: Positive
    zeta: Positive
    batch: Positive
    width: Positive | None
    repeats: Annotated[list[dict[str, Any]], Field(min_length=1)]


@with_config(extra="allow")
class Decision(TypedDict):
    k: Amount
    first_factorized: Amount


class Stacks(Profile):
    rows: list[StackRow]
    repeats: Annotated[list[Decision], Field(min_length=1)]


class Layers(Profile):
    rows: list[LayerRow]


KINDS: dict[str, type] = {
    "steps": Steps, "methods": Methods, "ranks": Ranks, "overhead": Overhead, "checkpoints": Checkpoints,
    "profile": Profile, "stacks": Stacks, "layers": Layers,
}  # fmt: skip
"""Of other kinds, which nobody reads, only the hardware and the times are asked for."""


def bench_problem(what: str, content: Mapping[str, Any]) -> str:
    """What is wrong with the content of a bench's file of that kind; empty where nothing is."""
    problem = _wrong(what, content)
    if problem:
        return problem
    kind = content["profiled"] if what == "profile" else what
    return _wrong(kind, content) or _uneven(kind, content)


def _wrong(kind: str, content: Mapping[str, Any]) -> str:
    try:
        _adapter(kind).validate_python(content)
    except ValidationError as found:
        error = found.errors(include_url=False)[0]
        name = next((name for name in reversed(error["loc"]) if isinstance(name, str)), "the file")
        return f"{name} is {None if error['type'] == 'missing' else repr(error['input'])[:80]}"
    return ""


@cache
def _adapter(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(KINDS.get(kind, File))


def _uneven(kind: str, content: Mapping[str, Any]) -> str:
    """Rounds and repetitions are compared one by one, so there must be as many of each."""
    rows = content["rows"]
    if kind == "steps":
        rounds = {len(row["rounds_s"]) for row in rows if row.get("rounds_s")}
        return "its rows have unlike rounds" if len(rounds) > 1 else ""
    if kind in ("stacks", "layers"):
        lengths = {len(series) for row in rows for series in [row["full_s"], *row["low_s"]]}
        ratios = {len(row["low_s"]) for row in rows} - {len(content["ratios"])}
        return "its rows have unlike repetitions or ratios" if len(lengths) > 1 or ratios else ""
    return ""
