"""Ranks measured every so many optimizer steps instead of every epoch, as fine-tuning needs."""

from typing import Annotated

from cuttlefish.errors import CuttlefishError
from cuttlefish.limits import Within

Interval = Annotated[int | None, Within(1, 10**7)]
"""Number of optimizer steps between two measurements of the ranks; None: an epoch's."""


def check_interval(interval: int | None, steps: int) -> None:
    """Raise CuttlefishError if a run of so many steps never reaches the end of an interval."""
    if interval is not None and interval >= steps:
        raise CuttlefishError(
            f"method.interval={interval} lies outside the run's {steps} steps; choose a lower one"
        )


def as_epochs(steps: int, of_epoch: int) -> float:
    """Return a number of steps in epochs of `of_epoch` steps; a whole number where they are whole."""
    epochs, rest = divmod(steps, of_epoch)
    return round(epochs + rest / of_epoch, 9) if rest else epochs
