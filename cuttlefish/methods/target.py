"""Target size for comparisons at equal size: a number of parameters, or a finished run to match."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from cuttlefish.errors import CuttlefishError
from cuttlefish.limits import Place, Within
from cuttlefish.record.fields import Record
from cuttlefish.record.find import SEARCHED, runs_of
from cuttlefish.record.record import read_record

TOLERANCE = 1e-6
TargetSize = Annotated[int | None, Within(1, 10**12)]
"""Type of a knob: total parameters of the result."""
Match = Annotated[str | None, Place()]
"""Type of a knob: the run key, folder or record of a finished run whose size to match."""


@dataclass(frozen=True)
class Target:
    """Total parameters that the result should have, and the source of that number."""

    params: int
    source: str

    def report(self, achieved: int) -> dict[str, Any]:
        """Return the record's `target` field."""
        ratio = achieved / self.params
        return {"params": self.params, "source": self.source, "achieved": achieved, "ratio": ratio}


def find_fraction(size: Callable[[float], int], target: int) -> float:
    """Return the fraction in [0, 1] whose `size` (non-decreasing) is nearest to the target, by bisection.

    Stop when the interval or the relative error is below 1e-6; return the visited fraction with the smallest
    error, the earlier of ties.
    """
    low, high, best, smallest = 0.0, 1.0, 1.0, float("inf")
    while high - low >= TOLERANCE and smallest >= TOLERANCE:
        middle = (low + high) / 2
        error = size(middle) / target - 1
        if abs(error) < smallest:
            best, smallest = middle, abs(error)
        low, high = (middle, high) if error < 0 else (low, middle)
    return best


def find_target(target_params: int | None, match: str | None) -> Target | None:
    """Return the size given by `target_params=` or `match=` (a run key, a run folder or a record).

    Raises:
        CuttlefishError: Both are given, or the run cannot be used.
    """
    if target_params is not None and match is not None:
        raise CuttlefishError("give target_params or match, not both: each sets the size")
    if target_params is not None:
        return Target(target_params, "target_params")
    if match is None:
        return None
    _, record = matched_run(match)
    if record.status != "finished" or not record.params_total:
        raise CuttlefishError(f"match={match}: that run has not finished, so it has no size to match")
    return Target(record.params_nonzero or record.params_total, f"run {record.run_key} ({record.method})")


def one_size(settings: Any, other: str | None = None) -> Iterator[str]:
    """Yield an error for settings that set the size twice, by `target_params`, `match` or the knob `other`.

    `other` counts as set if it differs from its default.
    """
    keys = ("target_params", "match") if other is None else (other, "target_params", "match")
    known = type(settings).__dataclass_fields__
    given = [key for key in keys if getattr(settings, key) != known[key].default]
    if len(given) > 1:
        yield f"{given[0]}: give {', '.join(keys[:-1])} or match, not two of them: each sets the size"


def target_state(target: Target | None) -> dict[str, Any]:
    """Return the target's part of a method's state."""
    return {} if target is None else {"target": asdict(target)}


def target_from_state(state: Mapping[str, Any]) -> Target | None:
    return Target(**state["target"]) if "target" in state else None


def matched_run(match: str) -> tuple[Path, Record]:
    """Return path and record: at a path, or of a run key (a finished one if there are several)."""
    if Path(match).exists():
        return Path(match), read_record(match)
    found = runs_of(match)
    if not found:
        raise CuttlefishError(
            f"match={match}: neither a path nor the run key of a record under {' or '.join(SEARCHED)}"
        )
    return next((run for run in found if run[1].status == "finished"), found[0])
