"""Means over seeds of a number or of a ratio of two, from the records of one setting."""

from statistics import mean, stdev

from cuttlefish.evidence.interval import variation_interval
from cuttlefish.evidence.records import Evidence
from cuttlefish.evidence.selection import Where, by_seed, is_time, on_one_machine
from cuttlefish.record.record import value_of
from cuttlefish.report.claims.rules.case import Case, Measure


def mean_over_seeds(
    case: Case, where: Where, of: str, over: str | None = None, times: float = 1, plus: float = 0
) -> list[Measure]:
    """times · of / over + plus, one sample per seed; `of` and `over` are (dotted) fields of the record."""
    runs = list(by_seed(on_one_machine(case.arm(where)) if is_time(of) else case.arm(where)).values())
    samples = [times * value + plus for run in runs if (value := _number(run, of, over)) is not None]
    if not samples:
        return [case.missing(f"no run of {case.describe(where)} has it")]
    return [case.measure(samples, runs)]


def largest_over_cells(case: Case, cells: list[Where], of: str, over: str) -> list[Measure]:
    """of / over of the cell with the largest mean."""
    found = [measure for where in cells for measure in mean_over_seeds(case, where, of, over)]
    measured = [measure for measure in found if measure.samples]
    return [max(measured, key=lambda measure: mean(measure.samples))] if measured else found[:1]


def variation_over_seeds(case: Case, cells: list[Where], of: str) -> list[Measure]:
    """Coefficient of variation of `of` over seeds, one part per cell with enough runs and a note on the
    others; if none has enough, one part per cell."""
    found = [(where, list(by_seed(case.arm(where)).values())) for where in cells]
    counted = [(where, runs) for where, runs in found if len(runs) >= case.needs]
    few = [
        f"without {case.describe(where)}: {len(runs)} of {case.needs} seeds"
        for where, runs in found
        if len(runs) < case.needs
    ]
    return [
        _variation(case.part(case.describe(where), case.accept), runs, of, few if counted else [])
        for where, runs in counted or found
    ]


def _variation(case: Case, runs: list[Evidence], of: str, notes: list[str]) -> Measure:
    samples = [value for run in runs if (value := value_of(run.record, of)) is not None]
    interval = variation_interval(samples)
    if not samples:
        return case.missing(f"no run of {case.name}")
    if interval is None:
        return case.measure(samples, runs, averaged=False, notes=["one seed has no variation"])
    value = stdev(samples) / mean(samples)
    return case.measure(samples, runs, interval=interval, averaged=False, value=value, notes=notes)


def _number(run: Evidence, of: str, over: str | None) -> float | None:
    upper, lower = value_of(run.record, of), value_of(run.record, over) if over else 1.0
    return None if upper is None or not lower else upper / lower
