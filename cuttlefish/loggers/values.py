"""Convert rows, profiles and records for trackers: flat mappings of numbers, and printable text."""

from collections.abc import Mapping
from typing import Any

from cuttlefish.display.format import printable


def numbers_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of an epoch row, metrics as `test_<name>`, seconds by part as `seconds/<part>`."""
    numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
    metrics = {name: value for name, value in (row.get("metrics") or {}).items() if name != "accuracy"}
    numbers |= {f"test_{name}": value for name, value in metrics.items()}
    return numbers | {f"seconds/{part}": value for part, value in (row.get("seconds") or {}).items()}


def rank_curves(rows: list[dict[str, Any]]) -> dict[float, dict[str, float]]:
    """Return the stable rank and rank ratio of each layer, by epoch."""
    curves: dict[float, dict[str, float]] = {}
    for row in rows:
        values = curves.setdefault(row["epoch"], {})
        values[f"ranks/{row['layer']}"] = row["stable_rank"]
        values[f"rank_ratio/{row['layer']}"] = row["scaled_rank"] / row["full_rank"]
    return curves


def speedups(profile: Mapping[str, Any]) -> dict[str, float]:
    """Return the measured speed-up of each stack."""
    return {f"speedup/{stack['name']}": stack["speedup"] for stack in profile["stacks"]}


def printable_values(value: Any) -> Any:
    """Return nested mappings and lists with control characters removed from all text."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable_values(name): printable_values(item) for name, item in value.items()}
    return [printable_values(item) for item in value] if isinstance(value, list | tuple) else value
