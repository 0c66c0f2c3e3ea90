"""Ends of runs in the middle."""

from cuttlefish.engine.step import StepRunner


def stopping_after(steps):
    """Return a `StepRunner.step` that is interrupted after so many steps."""
    taken, step = [], StepRunner.step

    def stopping(*arguments):
        if len(taken) == steps:
            raise KeyboardInterrupt
        taken.append(None)
        return step(*arguments)

    return stopping
