"""A budget of time for comparisons: the seconds that another, finished run took."""

from collections.abc import Mapping
from math import floor
from statistics import median
from typing import Any

from cuttlefish.errors import CuttlefishError
from cuttlefish.methods.target import matched_run
from cuttlefish.record.folder import read_epochs


def dense_epochs_within(match: str, most: int) -> tuple[int, float]:
    """Return how many epochs of the dense model fit into the compute seconds of a run, and these seconds.

    An epoch's time is the median of those that the run itself trained dense, on the same machine. At least
    one epoch is returned, and at most `most`.

    Args:
        match: The run key, folder or record of a finished run that switched, or declined to.

    Raises:
        CuttlefishError: The run cannot be found, has not finished, or has no dense epoch.
    """
    path, record = matched_run(match)
    if record.status != "finished" or not record.compute_seconds:
        raise CuttlefishError(f"match={match}: that run has not finished, so it has no time to match")
    rows = read_epochs(path.parent if path.is_file() else path)
    dense = rows if record.switch_epoch is None else rows[: record.switch_epoch]
    seconds = [train for row in dense if (train := _train_seconds(row)) is not None]
    if not seconds:
        raise CuttlefishError(f"match={match}: that run has no dense epoch, whose time is to be known")
    return max(1, min(floor(record.compute_seconds / median(seconds)), most)), record.compute_seconds


def _train_seconds(row: Mapping[str, Any]) -> float | None:
    """Return an epoch's training time; None if the row, a file's, holds none."""
    sections = row.get("seconds")
    train = sections.get("train") if isinstance(sections, Mapping) else None
    return train if isinstance(train, int | float) and train > 0 else None
