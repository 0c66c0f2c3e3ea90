"""Select the runs of a claim or figure by fields of their records, one setting at a time, paired by seed."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from cuttlefish.errors import CuttlefishError
from cuttlefish.evidence.records import Evidence, by_start
from cuttlefish.record.fields import Record
from cuttlefish.record.record import value_of

Where = dict[str, Any]
BESIDE_THE_SETTING = {
    "data": ("root", "download", "verify"),
    "method": ("match", "target_params", "track_ranks", "profile_repeats", "ranks"),
}
"""Fields that may differ between runs of one setting, by section of the config."""
TRAINER = ("compile", "max_steps", "max_eval_batches", "overfit")
"""Trainer fields that belong to the setting."""


class Unlike(CuttlefishError):
    """Raised for runs that must not be compared or averaged."""


class Runs(list[Evidence]):
    """Finished runs by scale and method, with cached searches."""

    def __init__(self, runs: Iterable[Evidence]):
        super().__init__(run for run in runs if run.finished)
        self._kept: dict[tuple[Any, Any], list[Evidence]] = defaultdict(list)
        self._found: dict[tuple[str, str], list[Evidence]] = {}
        self._unlike: dict[str, int] = {}
        for run in self:
            self._kept[run.record.scale, run.record.method].append(run)

    def find(self, where: Where, scale: str) -> list[Evidence]:
        asked = repr(where), scale
        if asked not in self._found:
            own = self._kept[scale, where["method"]] if isinstance(where.get("method"), str) else self
            self._found[asked] = select(own, where, scale)
        return self._found[asked]

    def arm(self, where: Where, scale: str, name: str) -> list[Evidence]:
        """Return the runs of one setting. Raises Unlike if they have several."""
        found = self.find(where, scale)
        key = f"{where!r} {scale}"
        if key not in self._unlike:
            self._unlike[key] = len({setting_of(run.record) for run in found})
        if self._unlike[key] > 1:
            raise Unlike(f"{name}: the runs are of {self._unlike[key]} settings, which do not average")
        return found


def select(runs: Iterable[Evidence], where: Where, scale: str) -> list[Evidence]:
    """Return the finished runs of `scale` whose records have these values.

    A list gives alternatives; a mapping holds one value per scale.
    """
    # The record's own fields first: they are fast.
    wanted = dict(sorted(at_scale(where, scale).items(), key=lambda item: item[0].count(".")))
    return [run for run in runs if run.finished and run.record.scale == scale and _fits(run.record, wanted)]


def at_scale(where: Where, scale: str) -> Where:
    """Return a description with the value of one scale where it holds one per scale."""
    return {
        path: value[scale] if isinstance(value, Mapping) and scale in value else value
        for path, value in where.items()
    }


def points_of(family: Where) -> Iterator[Where]:
    """Yield the points of a grid: each value of a list is a separate point."""
    lists = {path: values for path, values in family.items() if isinstance(values, list)}
    for values in product(*lists.values()):
        yield {**family, **dict(zip(lists, values, strict=True))}


def setting_of(record: Record) -> str:
    """Return model, data, recipe, method, precision and length as one comparable text."""
    config = record.config or {}
    sections = {name: dict(config.get(name) or {}) for name in ("model", "data", "recipe", "method")}
    for name, keys in BESIDE_THE_SETTING.items():
        for key in keys:
            sections[name].pop(key, None)
    own = [record.model, record.data, record.method, record.epochs, record.data_digest, record.precision]
    # False and None both mean "no".
    trainer = {name: value_of(record, f"config.trainer.{name}") or None for name in TRAINER}
    return repr((own, sections, trainer))


def by_seed(runs: Iterable[Evidence], *also: str) -> dict[tuple[Any, ...], Evidence]:
    """Select the run that counts for each seed.

    Args:
        also: `hardware`, or further fields, each value of which has its own run that counts.
    """
    found: dict[tuple[Any, ...], Evidence] = {}
    for run in by_start(runs):
        others = (run.timed_on if name == "hardware" else getattr(run.record, name) for name in also)
        found.setdefault((run.record.seed, *others), run)
    return dict(sorted(found.items(), key=lambda item: repr(item[0])))


def on_one_machine(runs: Sequence[Evidence]) -> list[Evidence]:
    """Select the runs on the hardware (and torch) with most seeds; times of different hardware never mix."""
    machines: dict[tuple[str, str], list[Evidence]] = defaultdict(list)
    for run in runs:
        machines[run.timed_on].append(run)
    return max(machines.values(), key=lambda own: len({run.record.seed for run in own}), default=[])


def is_time(path: str) -> bool:
    """Return whether a field is a time."""
    return path.split(".")[0] in ("seconds", "compute_seconds", "wall_seconds")


def _fits(record: Record, wanted: Where) -> bool:
    for path, value in wanted.items():
        found = value_of(record, path)
        if found not in value if isinstance(value, list) else found != value:
            return False
    return True
