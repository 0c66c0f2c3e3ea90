"""Check that a bench file has the fields that claims and figures need, by the kind of bench."""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, Strict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from cuttlefish.record.fields import Seconds, Text

Positive = Annotated[float, Strict(), Field(gt=1e-12, lt=2**63, allow_inf_nan=False)]
Series = Annotated[list[Positive], Field(min_length=1)]
TIMES = {"full_s": Series, "low_s": list[Series]}
"""Seconds at full rank, one per repetition, and at each ratio."""
PROFILE = {
    "profiled": Literal["stacks", "layers"], "model": Text, "precision": Text, "ratios": Series,
    "deciding_ratio": Positive, "threshold": Positive, "zeta": Positive, "batch": Positive,
    "width": Positive | None,
    "repeats": Annotated[list[dict[str, Any]], Field(min_length=1)],
}  # fmt: skip
DECISION = {"k": Seconds, "first_factorized": Seconds}


def _mapping(fields: Mapping[str, Any]) -> Any:
    """Return the type of a mapping with at least these fields."""
    return with_config(extra="allow")(TypedDict("Fields", dict(fields)))


def _file(row: Mapping[str, Any], **facts: Any) -> Any:
    """Return the type of a bench file whose rows have at least these fields."""
    rows = list[_mapping({"rounds_s": NotRequired[list[Positive] | None], **row})]
    return _mapping({"hardware": Text, "seconds": NotRequired[Seconds], "rows": rows, **facts})


KINDS: dict[str, Any] = {
    "steps": _file(dict.fromkeys(("batch", "step_s", "fastest_s", "slowest_s", "flops"), Positive)),
    "models": _file(
        {
            "model": Text,
            "arm": Text,
            "precision": Text,
            **dict.fromkeys(("batch", "step_s", "samples_per_s"), Positive),
        }
    ),
    "methods": _file({"params_nonzero": Positive}),
    "ranks": _file({"ours_s": Positive}),
    # One part of the time: per epoch of the narrow network, or once per run of the full-width one.
    "overhead": _file({"part": Text, "per": Literal["epoch", "run"], "width": Positive, "seconds": Seconds}),
    "checkpoints": _file({"model": Text, "width": Positive, "images": Positive, "checkpoint_s": Seconds}),
    "profile": _file({}, **PROFILE),
    "stacks": _file(
        {**TIMES, "stack": Text, "layers": list[Any]},
        **PROFILE | {"repeats": Annotated[list[_mapping(DECISION)], Field(min_length=1)]},
    ),
    "layers": _file(
        {
            **TIMES,
            "layer": Text,
            "kind": Text,
            "chosen_s": NotRequired[Series],
            "chosen": NotRequired[dict[Text, Positive]],
        },
        **PROFILE,
        chosen_by=NotRequired[dict[Text, Text]],
    ),
}
"""Required fields by kind; other kinds, which nothing reads, need only the hardware and the times."""


def bench_problem(what: str, content: Mapping[str, Any]) -> str:
    """Return what is wrong with the content of a bench file of that kind; empty if nothing is."""
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
    return TypeAdapter(KINDS.get(kind) or _file({}))


def _uneven(kind: str, content: Mapping[str, Any]) -> str:
    """Find unequal numbers of rounds or repetitions, which are compared one by one."""
    rows = content["rows"]
    if kind == "steps":
        rounds = {len(row["rounds_s"]) for row in rows if row.get("rounds_s")}
        return "its rows have unlike rounds" if len(rounds) > 1 else ""
    if kind in ("stacks", "layers"):
        own = [[row["chosen_s"]] if row.get("chosen_s") else [] for row in rows]
        all_s = [[row["full_s"], *row["low_s"], *more] for row, more in zip(rows, own, strict=True)]
        lengths = {len(series) for one in all_s for series in one}
        ratios = {len(row["low_s"]) for row in rows} - {len(content["ratios"])}
        return "its rows have unlike repetitions or ratios" if len(lengths) > 1 or ratios else ""
    return ""
