"""Rows of a stack profile in display units, shared by the summaries and the plots."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StackRow:
    """One stack: forward pass at full rank and at ratio α in `unit_of(profile)`; speed-ups are full / low."""

    name: str
    layers: int
    full: float
    low: float
    speedup: float
    backward_speedup: float | None
    intensity: float | None
    factorize: bool


def unit_of(profile: Mapping[str, Any]) -> str:
    """Return `ms` for timed stacks and `GFLOP` (equivalents) for those of the cost model."""
    return "GFLOP" if profile.get("source") == "cost model" else "ms"


def stack_rows(profile: Mapping[str, Any]) -> list[StackRow]:
    scale = 1e-9 if unit_of(profile) == "GFLOP" else 1e3
    return [_row(stack, scale) for stack in profile["stacks"]]


def _row(stack: Mapping[str, Any], scale: float) -> StackRow:
    full, low = _forward(stack, "full", scale), _forward(stack, "low", scale)
    speedups = stack.get("speedup") or full / low, stack.get("backward_speedup")
    decision = stack.get("intensity"), bool(stack["factorize"])
    return StackRow(stack["name"], len(stack["layers"]), full, low, *speedups, *decision)


def _forward(stack: Mapping[str, Any], side: str, scale: float) -> float:
    """Return the time in display units; profiles hold seconds, except in columns that end in `_ms`."""
    column = f"{side}_forward"
    return stack[f"{column}_ms"] if f"{column}_ms" in stack else stack[column] * scale
