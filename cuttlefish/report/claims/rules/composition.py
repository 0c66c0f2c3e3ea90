"""Compose the time of a full-width run from measured steps and the results of a narrow run.

The narrow run gives E as a share of its epochs, and the low-rank model's share of multiply-accumulates. The
full-width benches give the time of a dense step, the compute rate at rank 1/4 (assumed for the low-rank
model), and the times of the profile, the switch and a rank update. All results are marked as composed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cuttlefish.evidence.benches import Bench, newest
from cuttlefish.evidence.interval import Interval, t_interval
from cuttlefish.evidence.selection import Where, by_seed
from cuttlefish.evidence.step_times import StepRatio, step_ratio, step_row
from cuttlefish.record.fields import Record
from cuttlefish.report.claims.rules.case import Case, Measure


@dataclass(frozen=True)
class FullWidthCosts:
    """Seconds at full width.

    Attributes:
        faster: Ratio of a dense to a rank-1/4 step.
        work: Ratio of their FLOPs.
    """

    dense: float
    faster: StepRatio
    work: float
    profile: float
    switch: float
    ranks: float
    benches: list[Bench]


@dataclass(frozen=True)
class ComposedRun:
    """Seconds of the composed run and of its parts, and of the same run at full rank."""

    full_rank: float
    total: float
    profile: float
    ranks: float


def compose(costs: FullWidthCosts, record: Record, run: Mapping[str, int], faster: float) -> ComposedRun:
    """Compose a full-width run.

    Args:
        record: Of the narrow run.
        run: Epochs, images and batch of the composed run.
        faster: Which value of the step ratio to use.
    """
    steps = run["images"] / run["batch"]
    dense_epochs = record.switch_epoch / record.epochs * run["epochs"]
    low = record.macs_final / record.macs_full * costs.work * costs.dense / faster
    ranks = (dense_epochs + 1) * costs.ranks
    training = steps * (dense_epochs * costs.dense + (run["epochs"] - dense_epochs) * low)
    total = training + costs.profile + costs.switch + ranks
    return ComposedRun(steps * run["epochs"] * costs.dense, total, costs.profile, ranks)


def composed_speedup(
    case: Case, where: Where, arm: dict[str, Any], run: dict[str, int], unnamed: bool = False
) -> list[Measure]:
    """Full-rank over Cuttlefish time, one sample per seed.

    Args:
        arm: Model, width, batch and precision of the measured steps.
        run: Epochs and images.
        unnamed: The model of bench rows that name none.
    """
    return [_measure(case, where, arm, run, unnamed, lambda run: run.full_rank / run.total)]


def composed_share(
    case: Case, where: Where, arm: dict[str, Any], run: dict[str, int], of: str, unnamed: bool = False
) -> list[Measure]:
    """Share of `of` (profile, ranks) in the time of the Cuttlefish run, in percent."""
    return [_measure(case, where, arm, run, unnamed, lambda run: 100 * getattr(run, of) / run.total)]


def _measure(
    case: Case, where: Where, arm: dict[str, Any], run: dict[str, int], unnamed: bool,
    number: Callable[[ComposedRun], float],
) -> Measure:  # fmt: skip
    runs = list(by_seed(one for one in case.arm(where) if one.record.switch_epoch is not None).values())
    if not runs:
        return case.missing(f"no run of {case.describe(where)}")
    costs = _costs(case, arm, unnamed)
    if isinstance(costs, str):
        return case.missing(costs)
    length = {**run, "batch": arm["batch"]}

    def samples(faster: float) -> list[float]:
        return [number(compose(costs, one.record, length, faster)) for one in runs]

    interval = _hull([t_interval(samples(faster)) for faster in costs.faster.bounds])
    evidence = {"benches": costs.benches, "interval": interval, "composed": True}
    notes = ["the interval spans the steps' spread, too"]
    return case.measure(samples(costs.faster.value), runs, notes=notes, **evidence)


def _costs(case: Case, arm: dict[str, Any], unnamed: bool) -> FullWidthCosts | str:
    """Return the costs, or what is missing."""
    found = _of_one_machine(case.benches)
    if not found:
        return "no bench of steps, ranks and overhead on one machine with as many threads (make bench)"
    steps, ranks, overhead = found
    dense, low = (step_row(steps, **arm, arm=name) for name in ("dense", "rank 1/4"))
    once = [_once(overhead, part, arm, unnamed) for part in ("profile", "switch")]
    update = [row for row in ranks.rows if _is_of(row, arm, unnamed)]
    if not (dense and low and update and all(once)):
        return f"the benches lack steps, ranks, profile or switch of {arm['model']} at width {arm['width']}"
    work = dense["flops"] / low["flops"]
    seconds = (once[0]["seconds"], once[1]["seconds"], update[0]["ours_s"])
    return FullWidthCosts(dense["step_s"], step_ratio(dense, low), work, *seconds, found)


def _of_one_machine(benches: list[Bench]) -> list[Bench]:
    """Return the newest steps from a machine that has all three benches, with its newest other two."""
    for steps in reversed([bench for bench in benches if bench.what == "steps"]):
        own = [bench for bench in benches if bench.hardware == steps.hardware]
        others = [newest(own, "ranks"), newest(own, "overhead")]
        if all(others):
            return [steps, *others]
    return []


def _once(overhead: Bench, part: str, arm: dict[str, Any], unnamed: bool) -> dict[str, Any] | None:
    found = overhead.find(part=part, per="run", width=arm["width"])
    return next((row for row in found if _is_of(row, arm, unnamed)), None)


def _is_of(row: dict[str, Any], arm: dict[str, Any], unnamed: bool) -> bool:
    return row["model"] == arm["model"] if "model" in row else unnamed


def _hull(bounds: list[Interval | None]) -> Interval | None:
    known = [bound for bound in bounds if bound is not None]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None
