"""Rank rows of a run by layer, shared by the summaries and the plots."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LayerHistory:
    """One layer's stable rank over epochs, as a ratio to its value at initialisation.

    This is the scaled stable rank over the full rank: scaled = β·stable, β = full / stable at initialisation
    (paper, section 3.3), so it starts at 1.
    """

    layer: str
    full_rank: int
    epochs: list[float]
    ratios: list[float]


def rank_histories(rows: Iterable[Mapping[str, Any]]) -> list[LayerHistory]:
    """Return one history per layer, in the order of their first rows (the execution order)."""
    by_layer: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_layer.setdefault(row["layer"], []).append(row)
    return [_history(layer, sorted(own, key=lambda row: row["epoch"])) for layer, own in by_layer.items()]


def full_ranks(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    return {row["layer"]: row["full_rank"] for row in rows}


def _history(layer: str, rows: list[Mapping[str, Any]]) -> LayerHistory:
    return LayerHistory(
        layer, rows[0]["full_rank"], [row["epoch"] for row in rows], [_ratio(row, rows[0]) for row in rows]
    )


def _ratio(row: Mapping[str, Any], first: Mapping[str, Any]) -> float:
    # The rows of a forked run lack the initial value; use the rounded scaled rank instead.
    if first["epoch"] == 0 and first["stable_rank"]:
        return row["stable_rank"] / first["stable_rank"]
    return row["scaled_rank"] / row["full_rank"]
