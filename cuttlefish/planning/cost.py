"""Estimate how long a planned run takes, from finished runs."""

from collections.abc import Callable, Iterable, Sequence
from statistics import mean

from cuttlefish.evidence.benches import Bench, newest
from cuttlefish.evidence.quantities import Record, hours, hours_as_baseline
from cuttlefish.evidence.records import Collection, Evidence
from cuttlefish.evidence.step_times import dense_epoch, step_row
from cuttlefish.planning.estimate import DENSE, SAMPLES
from cuttlefish.planning.planned_run import PlannedRun


class Estimates:
    """Estimates from finished runs, or from benches.

    Args:
        planned: Every run that may serve for an estimate, of any seed.
        baselines: Baseline runs of any table at the same scale.
        benches: Used for full-width runs without another estimate.
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
        """Return device hours of training; None if unknown."""
        return self._mean(run, hours, hours_as_baseline)

    def wall_hours(self, run: PlannedRun) -> float | None:
        """Return hours from start to end; None if unknown."""
        return self._mean(run, _wall_hours, _wall_hours)

    def _mean(
        self, run: PlannedRun, of_run: Callable[[Record], float], of_baseline: Callable[[Record], float]
    ) -> float | None:
        """Return the mean of the cell's other seeds, else the baseline's hours per epoch times this run's
        epochs.

        Only the most recently used hardware counts.
        """
        same = self._newest(self._keys.get(run.cell, []))
        if same:
            return mean(of_run(found.record) for found in same)
        baselines = [one for one in self._baselines if (one.model, one.data) == (run.model, run.data)]
        full = self._newest([one.run_key for one in baselines])
        if not full or run.epochs is None:
            return None
        return run.epochs * mean(of_baseline(found.record) / found.record.epochs_trained for found in full)

    def by_bench(self, run: PlannedRun) -> tuple[float, str] | None:
        """Return device hours at the newest bench's dense step time, and its hardware; None if unknown."""
        if run.scale != "paper" or run.epochs is None:
            return None
        found = dense_epoch(self._benches, run.model, run.data) or self._of_networks(run)
        return (run.epochs * found[0] / 3600, str(found[1].facts["hardware"])) if found else None

    def _of_networks(self, run: PlannedRun) -> tuple[float, Bench] | None:
        """Return the same as `dense_epoch` of the networks of Tables 2 to 4, in the run's precision."""
        bench, samples = newest(self._benches, "models"), SAMPLES.get(run.data)
        chosen = {"model": run.choices("model")[0], "precision": run.precision, "arm": DENSE}
        row = step_row(bench, **chosen) if bench and samples else None
        return (samples / row["batch"] * row["step_s"], bench) if row else None

    def _newest(self, keys: Sequence[str]) -> list[Evidence]:
        found = [self._finished[key] for key in dict.fromkeys(keys) if key in self._finished]
        found.sort(key=lambda run: run.record.started)
        return [run for run in found if run.hardware == found[-1].hardware]


def _wall_hours(record: Record) -> float:
    return record.wall_seconds / 3600
