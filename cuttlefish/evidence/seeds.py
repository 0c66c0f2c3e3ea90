"""Mean and standard deviation over seeds of comparable runs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from cuttlefish.errors import CuttlefishError
from cuttlefish.evidence.records import Evidence
from cuttlefish.record.fields import Record

Quantity = Callable[[Record], float | None]


@dataclass(frozen=True)
class OverSeeds:
    """Statistics over seeds. std is the sample's (n − 1); None for one seed."""

    mean: float
    std: float | None
    n: int

    def text(self, show: Callable[[float], str]) -> str:
        """`78.93 ± 0.21`, without the deviation if there is none."""
        return f"{show(self.mean)} ± {show(self.std)}" if self.std else show(self.mean)


def over_seeds(
    runs: Sequence[Evidence], quantity: Quantity, *, any_machine: bool = False
) -> OverSeeds | None:
    """Average a quantity; None unless every run has it, because a partial mean would hide the others.

    Args:
        any_machine: Accept runs on several machines of one device type and precision (for what is no time).
    """
    values = [quantity(run.record) for run in check_alike(runs, any_machine)]
    if not values or any(value is None for value in values):
        return None
    return OverSeeds(mean(values), stdev(values) if len(values) > 1 else None, len(values))


def check_alike(runs: Sequence[Evidence], any_machine: bool = False) -> Sequence[Evidence]:
    """Return the runs after checking that they differ by their seeds alone.

    Raises:
        CuttlefishError: They have two scales or two kinds of hardware, or a seed occurs twice.
    """
    hardware = {run.hardware for run in runs}
    if any_machine and len(hardware) > 1:
        hardware = {device_and_precision(run) for run in runs}
    for what, values in (("scales", {run.record.scale for run in runs}), ("kinds of hardware", hardware)):
        if len(values) > 1:
            raise CuttlefishError(f"runs of several {what} cannot be averaged: {', '.join(sorted(values))}")
    seeds = [run.record.seed for run in runs]
    if len(set(seeds)) < len(seeds):
        given = ", ".join(map(str, sorted(seeds)))
        raise CuttlefishError(f"a seed was given twice to an average: seeds {given}")
    return runs


def device_and_precision(run: Evidence) -> str:
    """Return what two runs must share for their accuracies to compare: `cpu, fp32`."""
    return f"{run.record.device_type}, {run.record.precision}"


def paired(left: Iterable[Evidence], right: Iterable[Evidence]) -> list[tuple[Evidence, Evidence]]:
    """Pair the runs of the same seed."""
    others = {run.record.seed: run for run in right}
    return [(run, others[run.record.seed]) for run in left if run.record.seed in others]
