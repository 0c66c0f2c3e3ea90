"""How long a planned run will take, from runs that were made."""

from collections.abc import Callable, Iterable, Sequence
from statistics import mean

from cuttlefish.evidence.benches import Bench
from cuttlefish.evidence.quantities import Record, hours, hours_as_baseline
from cuttlefish.evidence.records import Collection, Evidence
from cuttlefish.evidence.step_times import dense_epoch
from cuttlefish.plan.planned_run import PlannedRun


class Estimates:
    """Estimates from finished runs, or from benches.

    Args:
        planned: Every run that may serve as a measure, whatever its seed.
        baselines: Those of any table at the same scale.
        benches: By which runs of full width are estimated that nothing else is known of.
    """

    def __init__(
        self,
        planned: Iterable[PlannedRun],
        baselines: Iterable[PlannedRun],
        collection: Collection,
        benches: Sequence[Bench] = (),
    ):
        self._benches = benches
        self._finished = {run.record.run_key: run for run in collection.finished}
        self._keys: dict[tuple[object, ...], list[str]] = {}
        for run in planned:
            self._keys.setdefault(run.cell, []).append(run.run_key)
        self._baselines = list(baselines)

    def hours(self, run: PlannedRun) -> float | None:
        """Device hours of training, None where nothing is known."""
        return self._mean(run, hours, hours_as_baseline)

    def wall_hours(self, run: PlannedRun) -> float | None:
        """Hours from start to end, None where nothing is known."""
        return self._mean(run, _wall_hours, _wall_hours)

    def _mean(
        self, run: PlannedRun, of_run: Callable[[Record], float], of_baseline: Callable[[Record], float]
    ) -> float | None:
        """The mean of the same cell's other seeds; else the baseline's hours an epoch times this run's
        epochs.

        Of the hardware that was used last.
        """
        same = self._newest(self._keys.get(run.cell, []))
        if same:
            return mean(of_run(found.record) for found in same)
        full = self._newest(
            [other.run_key for other in self._baselines if (other.model, other.data) == (run.model, run.data)]
        )
        if not full or run.epochs is None:
            return None
        return run.epochs * mean(of_baseline(found.record) / found.record.epochs_trained for found in full)

    def by_bench(self, run: PlannedRun) -> tuple[float, str] | None:
        """Device hours as if every step were a dense one of the newest bench of steps, and the bench's
        hardware; None where that is not known."""
        if run.scale != "paper" or run.epochs is None:
            return None
        found = dense_epoch(self._benches, run.model, run.data)
        return (run.epochs * found[0] / 3600, str(found[1].facts["hardware"])) if found else None

    def _newest(self, keys: Sequence[str]) -> list[Evidence]:
        found = sorted(
            (self._finished[key] for key in dict.fromkeys(keys) if key in self._finished),
            key=lambda run: run.record.started,
        )
        return [run for run in found if run.hardware == found[-1].hardware]


def _wall_hours(record: Record) -> float:
    return record.wall_seconds / 3600
