"""Is any point of a grid at most as large and yet more accurate? (paper, figure 1)"""

from __future__ import annotations

from collections import defaultdict
from statistics import mean

from cuttlefish.report.evidence import Evidence
from cuttlefish.report.rules.case import Case, Measure, describe
from cuttlefish.report.rules.pairs import pairs
from cuttlefish.report.selection import Where, average, select, setting_of


def frontier(case: Case, ours: Where, grid: list[Where], points: int, of: str = "accuracy_final", size: str = "params_total") -> list[Measure]:
    """Accuracy of each grid point that is no larger than ours, minus ours (points), paired by seed: a part a point.

    points: the fewest settings that make a grid; with fewer nothing is judged.
    """
    mine = case.arm(ours)
    settings = _settings([run for where in grid for run in select(case.runs, where, case.scale)])
    if not mine or not settings:
        return [case.missing(f"no run of {describe(ours, case.scale)}" if not mine else "no run of the grid")]
    limit = mean(run.record[size] for run in mine)
    smaller = [runs for runs in settings if mean(run.record[size] for run in runs) <= limit]
    measures = [measure for runs in smaller if (measure := _gain(case, mine, runs, of))]
    if len(settings) < points:
        measures.append(case.missing(f"{len(settings)} of at least {points} points of the grid have runs"))
    return measures or [case.missing("no point of the grid is as small and shares a seed")]


def _settings(runs: list[Evidence]) -> list[list[Evidence]]:
    groups: dict[str, list[Evidence]] = defaultdict(list)
    for run in runs:
        groups[setting_of(run.record)].append(run)
    return list(groups.values())


def _gain(case: Case, mine: list[Evidence], runs: list[Evidence], of: str) -> Measure | None:
    found, _ = pairs(case, runs, mine)
    samples = [average(theirs, of) - average(own, of) for theirs, own in found if average(theirs, of) is not None and average(own, of) is not None]
    used = [run for pair in found for side in pair for run in side]
    return case.part(_point(runs[0]), case.accept).measure(samples, used) if samples else None


def _point(run: Evidence) -> str:
    method = (run.record.get("config") or {}).get("method") or {}
    knobs = ((run.record.get("switch_epoch"), "E"), (run.record.get("k"), "K"), (method.get("rank_ratio"), "ratio"))
    return ", ".join([run.record["method"], *(f"{name} = {value:g}" for value, name in knobs if value is not None)])
