"""Stable ranks during a run, and agreement of the ranks of two methods (paper, figures 2, 3 and 5)."""

from collections.abc import Callable
from functools import lru_cache
from math import floor, inf
from pathlib import Path
from statistics import mean, median

from scipy.stats import spearmanr

from cuttlefish.display.rank_history import LayerHistory, full_ranks, rank_histories
from cuttlefish.evidence.interval import range_of
from cuttlefish.evidence.records import Evidence
from cuttlefish.evidence.selection import Where, by_seed
from cuttlefish.record.folder import RANKS, read_ranks
from cuttlefish.record.record import value_of
from cuttlefish.report.claims.rules.case import Case, Measure
from cuttlefish.report.claims.rules.pairs import pairs

Window = tuple[int, int]


def ranks_settle(
    case: Case, where: Where, early: Window, late: Window | None = None, late_before_drop: int | None = None
) -> list[Measure]:
    """The slowest layer's ratio of late to early mean |d rank / epoch|, one sample per seed.

    The first and the last layer, which are never factorized, are ignored.

    Args:
        early, late: Epochs counted from 1, both ends included.
        late_before_drop: Instead of `late`, this many epochs before the learning rate first drops.
    """

    def slowest(run: Evidence) -> float | None:
        window = late or _before_drop(run, late_before_drop or 0)
        speeds = [
            (_speed(history, window), _speed(history, early))
            for history in _inner(run)
            if _covers(history, window, early)
        ]
        return max((slow / fast if fast else inf for slow, fast in speeds), default=None)

    return _of_each_run(case, where, slowest)


def ranks_differ(case: Case, where: Where) -> list[Measure]:
    """Largest over smallest settled rank ratio (stable rank over its initial value), one sample per seed."""

    def spread(run: Evidence) -> float | None:
        ratios = [history.ratios[-1] for history in _inner(run)]
        return max(ratios) / min(ratios) if min(ratios, default=0) else None

    return _of_each_run(case, where, spread)


def ranks_agree(
    case: Case, left: Where, right: Where, correlation: dict[str, float], quotient: dict[str, list[float]]
) -> list[Measure]:
    """Spearman correlation over layers of two arms' ranks, and the median of left / right; a sample per seed.

    A layer that one side kept dense counts with its full rank.
    """
    arms = case.arm(left), case.arm(right)
    found, _ = pairs(case, *arms)
    used = [run for pair in found for run in pair]
    ranks = [both for both in (_both(one, other) for one, other in found) if len(both) > 2]
    if not ranks:
        absent = [where for where, arm in zip((left, right), arms, strict=True) if not arm]
        words = "; ".join(f"no run of {case.describe(where)}" for where in absent)
        return [case.missing(words or "the two arms share no seed and layers")]
    first = case.part("Spearman correlation over layers", range_of(correlation))
    second = case.part("median over layers of the quotient", range_of(quotient))
    return [
        first.measure([float(spearmanr(*zip(*both, strict=True)).statistic) for both in ranks], used),
        second.measure([median(one / other for one, other in both) for both in ranks], used),
    ]


def _of_each_run(case: Case, where: Where, number: Callable[[Evidence], float | None]) -> list[Measure]:
    found = [(run, value) for run in by_seed(case.arm(where)).values() if (value := number(run)) is not None]
    if not found:
        return [case.missing(f"no run of {case.describe(where)} has recorded its ranks")]
    return [case.measure([value for _, value in found], [run for run, _ in found])]


def _inner(run: Evidence) -> list[LayerHistory]:
    file = run.path.parent / RANKS
    return _histories(file, file.stat().st_mtime_ns)[1:-1] if file.exists() else []


@lru_cache(maxsize=4096)
def _histories(file: Path, _modified: int) -> list[LayerHistory]:
    """Return rank histories, cached because several claims use them and reading thousands is slow."""
    return rank_histories(read_ranks(file.parent))


def _speed(history: LayerHistory, window: Window) -> float:
    """Mean |Δ| of a layer's ratio over the epochs of the window; row e holds the ranks after e epochs."""
    after = dict(zip(history.epochs, history.ratios, strict=True))
    return mean(abs(after[epoch] - after[epoch - 1]) for epoch in range(window[0], window[1] + 1))


def _covers(history: LayerHistory, *windows: Window) -> bool:
    needed = {epoch for first, last in windows for epoch in range(first - 1, last + 1)}
    return needed <= set(history.epochs)


def _before_drop(run: Evidence, count: int) -> Window:
    """Return the window before the first drop, at floor(milestone · epochs); milestones are fractions."""
    milestones = value_of(run.record, "config.recipe.schedule.milestones") or [1.0]
    drop = floor(min(milestones) * run.record.epochs)
    return drop - count + 1, drop


def _both(left: Evidence, right: Evidence) -> list[tuple[int, int]]:
    full = full_ranks([*read_ranks(left.path.parent), *read_ranks(right.path.parent)])
    ranks = [run.record.ranks or {} for run in (left, right)]
    layers = [layer for layer in full if layer in ranks[0] or layer in ranks[1]]
    return [(ranks[0].get(layer, full[layer]), ranks[1].get(layer, full[layer])) for layer in layers]
