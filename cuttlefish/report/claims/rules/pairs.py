"""Compare two arms paired by seed, by differences and ratios."""

from collections.abc import Callable, Sequence
from statistics import mean
from typing import Any

from cuttlefish.evidence.records import Evidence
from cuttlefish.evidence.selection import Where, by_seed, is_time, on_one_machine
from cuttlefish.record.record import value_of
from cuttlefish.report.claims.rules.case import Case, Measure

ALIKE = ("precision", "data_digest")
Pair = tuple[Evidence, Evidence]


def paired_difference(case: Case, left: Where, right: Where, of: str, **conditions: Any) -> list[Measure]:
    """of(left) − of(right), one sample per seed that both arms have. conditions: see `pairs`."""
    return [_paired(case, left, right, of, lambda upper, lower: upper - lower, **conditions)]


def paired_quotient(
    case: Case, left: Where, right: Where, of: str, times: float = 1, plus: float = 0, **conditions: Any
) -> list[Measure]:
    """times · of(left) / of(right) + plus, one sample per seed that both arms have."""
    return [_paired(case, left, right, of, lambda upper, lower: times * upper / lower + plus, **conditions)]


def _paired(
    case: Case,
    left: Where,
    right: Where,
    of: str,
    compare: Callable[[float, float], float],
    **conditions: Any,
) -> Measure:
    if is_time(of):
        conditions = {**conditions, "alike": ("hardware",)}  # whatever the claim asks for
    arms = case.arm(left), case.arm(right)
    absent = [case.describe(where) for where, runs in zip((left, right), arms, strict=True) if not runs]
    if absent:
        return case.missing("no run of " + "; none of ".join(absent))
    found, notes = pairs(case, *arms, **conditions)
    numbers = [(value_of(one.record, of), value_of(other.record, of), (one, other)) for one, other in found]
    known = [(upper, lower, runs) for upper, lower, runs in numbers if upper is not None and lower]
    if not known:
        return case.missing("; ".join(notes) or "the two arms have no seed in common")
    return case.measure(
        [compare(upper, lower) for upper, lower, _ in known],
        [run for _, _, runs in known for run in runs],
        notes=notes,
    )


def pairs(
    case: Case,
    left: Sequence[Evidence],
    right: Sequence[Evidence],
    *,
    alike: tuple[str, ...] = ALIKE,
    same: tuple[str, ...] = (),
    right_sized_as: Where | None = None,
    tolerance: float = 0.0,
) -> tuple[list[Pair], list[str]]:
    """Return the pairs of equal seeds, and what was dropped and why.

    Args:
        alike: Fields besides the seed that both sides must share; `hardware` admits one machine alone.
        same: Fields that must be equal; other pairs are dropped with a note.
        right_sized_as: Count the right side only if its size is within `tolerance` (a share) of that arm's
            mean.
    """
    groups = by_seed(left, *alike), by_seed(right, *alike)
    found = [(groups[0][key], groups[1][key]) for key in groups[0] if key in groups[1]]
    if "hardware" in alike:
        shared = on_one_machine([one for one, _ in found])
        found = [pair for pair in found if pair[0] in shared]
    kept = [pair for pair in found if all(_equal(pair, path) for path in same)]
    notes = []
    if len(kept) < len(found):
        notes.append(f"{len(found) - len(kept)} pairs dropped: unlike {' and '.join(same)}")
    if right_sized_as is not None:
        sized = _sized(case, kept, right_sized_as, tolerance)
        if len(sized) < len(kept):
            dropped = len(kept) - len(sized)
            notes.append(f"{dropped} pairs dropped: not within {tolerance:.0%} of the size wanted")
        kept = sized
    return kept, notes


def _equal(pair: Pair, path: str) -> bool:
    return value_of(pair[0].record, path) == value_of(pair[1].record, path)


def _sized(case: Case, found: list[Pair], where: Where, tolerance: float) -> list[Pair]:
    sizes = [run.record.params_total for run in by_seed(case.arm(where)).values()]
    if not sizes:
        return []
    wanted = mean(sizes)
    return [pair for pair in found if abs(pair[1].record.params_total / wanted - 1) <= tolerance]
