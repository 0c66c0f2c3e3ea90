"""What the runs that a claim still needs would cost, going by those that were run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean
from typing import Any

from cuttlefish.report.evidence import Evidence
from cuttlefish.report.format import counted, duration, memory
from cuttlefish.report.selection import Where, points_of, select

CHECKPOINT_BYTES, CHECKPOINTS = 8, 3
"""A float32 weight and its momentum; the last two epochs and the one before the switch."""


def cost_of(rule: Any, scale: str, needs: int, runs: Sequence[Evidence]) -> str:
    """`8 runs, 5 h 10 min on <hardware>, 46 MiB`. Of each arm of the rule the seeds that are missing; times and sizes are means over
    finished runs of the same scale, model and method, else of the same scale and model."""
    arms = {repr(where): where for where in arms_of(rule)}
    missing = {key: needs - len({run.record["seed"] for run in select(runs, where, scale)}) for key, where in arms.items()}
    wanted = [(arms[key], count) for key, count in missing.items() if count > 0]
    if not wanted:
        return ""
    alike = [(count, _alike(where, scale, runs)) for where, count in wanted]
    total = sum(count for count, _ in alike)
    words = [counted(total, "run")]
    known = [(count, found) for count, found in alike if found]
    if not known:
        return f"{words[0]}; none like them has been timed"
    seconds = sum(count * mean(run.record["wall_seconds"] for run in found) for count, found in known)
    room = sum(count * mean(run.record["params_full"] for run in found) for count, found in known) * CHECKPOINT_BYTES * CHECKPOINTS
    words += [f"about {duration(seconds)} on {known[0][1][0].record['device']}", f"{memory(room)} of disk"]
    words += [f"the time of {total - sum(count for count, _ in known)} is unknown"] if len(known) < len(alike) else []
    return ", ".join(words)


def arms_of(rule: Any) -> Iterator[Where]:
    """Every description of runs in a rule: a mapping that names a method."""
    if isinstance(rule, Mapping):
        if "method" in rule:
            yield rule
        for name, value in rule.items():
            yield from arms_of([point for family in value for point in points_of(family)] if name == "grid" else value)
    elif isinstance(rule, list):
        for value in rule:
            yield from arms_of(value)


def _alike(where: Where, scale: str, runs: Sequence[Evidence]) -> list[Evidence]:
    finished = [run for run in runs if run.finished and run.record["scale"] == scale and run.record["model"] == where.get("model")]
    return [run for run in finished if run.record["method"] == where.get("method")] or finished
