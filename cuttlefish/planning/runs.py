"""Plan the runs of tables at a scale for given seeds."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cuttlefish.config.suggest import choose_from
from cuttlefish.errors import CuttlefishError
from cuttlefish.planning.cache import kept
from cuttlefish.planning.composition import Seeded, compose_point
from cuttlefish.planning.planned_run import PlannedRun
from cuttlefish.planning.points import Point, points
from cuttlefish.planning.spec import Spec

Entries = Mapping[int, Seeded]


def planned_runs(
    spec: Spec,
    tables: Iterable[str],
    scale: str,
    seeds: Sequence[int],
    root: Path,
    cache: Path | None = None,
    only_baselines: bool = False,
) -> list[PlannedRun]:
    """Return every run of these tables and figures at a scale, in their order and by seed within a cell.

    Args:
        root: The folder that contains conf/.
        cache: The folder for cached compositions; None for the machine's default.
    """
    wanted = [
        point
        for name in tables
        for point in points(spec, spec.table(name), scale)
        if point.row.baseline or not only_baselines
    ]
    entries = _composed([*wanted, *(point.match for point in wanted if point.match)], root, cache)
    return [_run(point, entries, seed) for point in wanted for seed in seeds]


def _composed(wanted: Sequence[Point], root: Path, cache: Path | None) -> Entries:
    """Return compositions by the identity of their points; points with the same words share one."""
    named = {(*point.words, "matched" if point.match else "free"): point for point in wanted}
    made = kept(root, list(named), lambda words: _compose(named[words], root / "conf"), cache)
    entries = {words: Seeded(entry) for words, entry in made.items()}
    return {id(point): entries[(*point.words, "matched" if point.match else "free")] for point in wanted}


def _compose(point: Point, conf: Path) -> Mapping[str, Any]:
    try:
        return compose_point(point, conf)
    except CuttlefishError as error:
        where = f"{point.table}, row {point.row.name} at scale {point.scale}"
        raise CuttlefishError(f"{where}: {error}") from error


def _run(point: Point, entries: Entries, seed: int) -> PlannedRun:
    partner, own = point.match, entries[id(point)]
    match, waits_in = entries[id(partner)].key_and_folder(seed) if partner else (None, None)
    key, folder = own.key_and_folder(seed, match)
    matched = [f"method.match='{match}'"] if match else []  # quoted, or 123456789012 would become a number
    return PlannedRun(
        table=point.table,
        row=point.row.name,
        label=point.row.label,
        kinds=point.kinds,
        baseline=point.row.baseline,
        model=own.config.model.name,
        data=own.config.data.name,
        scale=point.scale,
        seed=seed,
        point=point.own,
        run_key=key,
        words=(*point.words, f"seed={seed}", *matched),
        folder=folder,
        epochs=own.entry["epochs"],
        precision=own.config.trainer.precision,
        data_there=own.there,
        waits_for=match,
        waits_for_label=partner.row.label if partner else None,
        waits_in=waits_in,
    )


def pick(runs: list[PlannedRun], picks: Mapping[str, str]) -> list[PlannedRun]:
    """Return the runs with these values, as in {"row": "cuttlefish,lc"}; models and data by name or choice.

    Raises:
        CuttlefishError: No run has one of the values.
    """
    for key, values in picks.items():
        there = list(dict.fromkeys(run.choices(key)[0] for run in runs))
        for value in values.split(","):
            if value not in {*there, *(getattr(run, key) for run in runs)}:
                raise CuttlefishError(f"{key}={value} is of no run here{choose_from(value, there)}")
        wanted = set(values.split(","))
        runs = [run for run in runs if wanted & {getattr(run, key), *run.choices(key)}]
    return runs
