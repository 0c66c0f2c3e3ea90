"""What claims and figures take for granted in a bench, by its kind: one that lacks it is no bench."""

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

Rows = list[dict[str, Any]]
Check = Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_amount(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value < 2**63
        and isfinite(value)
    )


def _is_positive(value: Any) -> bool:
    return _is_amount(value) and value > 1e-12


def _are_positive(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_positive, value))


def _are_series(value: Any) -> bool:
    return isinstance(value, list) and all(map(_are_positive, value))


def _are_mappings(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


STEP: dict[str, Check] = {
    "batch": _is_positive,
    "step_s": _is_positive,
    "fastest_s": _is_positive,
    "slowest_s": _is_positive,
    "flops": _is_positive,
}
TIMES: dict[str, Check] = {"full_s": _are_positive, "low_s": _are_series}
ROWS: dict[str, dict[str, Check]] = {
    "steps": STEP, "methods": {"params_nonzero": _is_positive}, "ranks": {"ours_s": _is_positive},
    "checkpoints": {"what": _is_text, "checkpoint_s": _is_amount},
    "overhead": {"what": _is_text, "seconds": _is_amount},
    "stacks": TIMES | {"stack": _is_text, "layers": lambda value: isinstance(value, list)}, "layers": TIMES | {"layer": _is_text, "kind": _is_text},
}  # fmt: skip
PROFILE: dict[str, Check] = {
    "profiled": lambda value: value in ("stacks", "layers"), "model": _is_text, "precision": _is_text, "ratios": _are_positive,
    "deciding_ratio": _is_positive, "threshold": _is_positive, "zeta": _is_positive, "repeats": _are_mappings, "batch": _is_positive,
    "width": lambda value: value is None or _is_positive(value),
}  # fmt: skip
REPEAT: dict[str, Check] = {"k": _is_amount, "first_factorized": _is_amount}


def bench_problem(what: str, facts: Mapping[str, Any], rows: Rows) -> str:
    """What is wrong with a bench of that kind, or nothing. Of kinds that nobody reads only their times are asked for."""
    kind = what
    if not _is_amount(facts.get("seconds", 0)):
        return f"seconds is {facts['seconds']!r}"
    if what == "profile":
        if wrong := _wrong(facts, PROFILE):
            return wrong
        kind = facts["profiled"]
    repeats = facts["repeats"] if kind == "stacks" else []
    wrong = [
        *(_wrong(row, ROWS.get(kind, {})) for row in rows),
        *(_wrong(repeat, REPEAT) for repeat in repeats),
    ]
    wrong += [_wrong(row, {"rounds_s": _are_positive}) for row in rows if row.get("rounds_s")]
    return next(filter(None, wrong), "") or _uneven(kind, facts, rows)


def _wrong(values: Mapping[str, Any], checks: Mapping[str, Check]) -> str:
    wrong = (name for name, is_right in checks.items() if name not in values or not is_right(values[name]))
    return next((f"{name} is {values.get(name)!r}" for name in wrong), "")


def _uneven(kind: str, facts: Mapping[str, Any], rows: Rows) -> str:
    """Rounds and repetitions are compared one by one."""
    if kind == "steps":
        rounds = [row["rounds_s"] for row in rows if row.get("rounds_s")]
        return "" if len(set(map(len, rounds))) <= 1 else "its rows have unlike rounds"
    if kind in ("stacks", "layers"):
        lengths = {len(series) for row in rows for series in [row["full_s"], *row["low_s"]]}
        ratios = {len(row["low_s"]) for row in rows} - {len(facts["ratios"])}
        return "its rows have unlike repetitions or ratios" if len(lengths) > 1 or ratios else ""
    return ""
