"""Check whether any point of a grid is no larger and yet more accurate (paper, figure 1)."""

from math import inf
from statistics import mean

from cuttlefish.evidence.interval import LEVEL
from cuttlefish.evidence.records import Evidence
from cuttlefish.evidence.selection import Where, by_seed, points_of
from cuttlefish.record.record import value_of
from cuttlefish.report.claims.rules.case import Case, Measure
from cuttlefish.report.claims.rules.pairs import pairs


def frontier(
    case: Case, ours: Where, grid: list[Where], of: str = "accuracy_final", size: str = "params_total"
) -> list[Measure]:
    """Accuracy of each grid point no larger than ours, minus ours (points), paired by seed; one part per
    point, the most accurate first.

    A point without runs, or without one of our seeds, is missing and leaves the claim open. There is no
    correction for multiple comparisons, and a note explains the consequences.

    Args:
        grid: Descriptions of runs in which each value of a list is a separate point (in `where` they are
            alternatives).
    """
    mine = case.arm(ours)
    points = [(where, case.arm(where)) for family in grid for where in points_of(family)]
    found = [(where, runs) for where, runs in points if runs]
    if not mine or not found:
        return [case.missing(f"no run of {case.describe(ours)}" if not mine else "no run of the grid")]
    limit = _size(mine, size)
    smaller = [(where, runs) for where, runs in found if _size(runs, size) <= limit]
    measures = [
        _gain(case, mine, runs, of, case.describe(where), _chance(len(smaller))) for where, runs in smaller
    ]
    measures.sort(key=lambda measure: mean(measure.samples or [-inf]), reverse=True)
    if len(found) < len(points):
        measures.append(
            case.missing(f"{len(points) - len(found)} of the grid's {len(points)} points have no run")
        )
    return measures or [case.missing("no point of the grid is as small")]


def _size(runs: list[Evidence], size: str) -> float:
    return mean(getattr(run.record, size) for run in by_seed(runs).values())


def _chance(points: int) -> list[str]:
    """Describe the effect of multiple comparisons. Outside needs one point beyond the limit, each with half
    of the level's error; inside needs all of them, which errs less the more there are."""
    if points < 2:
        return []
    expected = points * (1 - LEVEL) / 2
    return [
        f"{points} points are each held against the limit at {LEVEL:.0%}, without correction for their "
        f"number: up to {expected:.2g} of them would be outside by chance, if all lay on the limit"
    ]


def _gain(
    case: Case, mine: list[Evidence], runs: list[Evidence], of: str, point: str, notes: list[str]
) -> Measure:
    found, _ = pairs(case, runs, mine)
    values = [(value_of(theirs.record, of), value_of(own.record, of)) for theirs, own in found]
    samples = [theirs - own for theirs, own in values if theirs is not None and own is not None]
    used = [run for pair in found for run in pair]
    part = case.part(point, case.accept)
    if not samples:
        return part.missing(f"{point}: no seed in common with ours")
    return part.measure(samples, used, notes=notes)
