"""How much the seed alone moves a table's headlines, and how many seeds a difference of a point needs."""

from collections.abc import Iterable
from statistics import stdev

from cuttlefish.display.format import counted
from cuttlefish.evidence.interval import seeds_for
from cuttlefish.evidence.selection import by_seed
from cuttlefish.planning.spec import Spec
from cuttlefish.report.tables.match_runs import CellRuns


def seeds_notes(spec: Spec, cells: Iterable[CellRuns]) -> list[str]:
    """Return one sentence over the baseline's runs, as far as there are two seeds; none without."""
    parts = []
    for cell in cells:
        runs = by_seed(cell.anywhere).values()
        scores = [run.record.score for run in runs if run.record.score is not None]
        if cell.planned[0].baseline and len(scores) > 1:
            deviation = stdev(scores)
            needed = counted(seeds_for(deviation), "seed")
            data = spec.called(cell.planned[0].data)
            parts.append(f"{data} {deviation:.2f} ({len(scores)} seeds, {needed} needed)")
    if not parts:
        return []
    return [
        "The seed alone moves the headline of full-rank runs by a standard deviation, in points, of: "
        f"{'; '.join(parts)}. Needed are seeds for which the 95 % interval of a difference between two rows, "
        "paired by seed, is ± 1 point."
    ]
