"""The one exception a user is meant to read."""


class CuttlefishError(Exception):
    """Bad input or environment, in one sentence: what was wrong, where it came from, what would be right.

    The command line prints the sentence without a traceback and exits with a non-zero code.
    """


class Busy(CuttlefishError):
    """Another live process is doing this very run."""


class TakenOver(Busy):
    """Another process has taken this very run over; this one has nothing to write to its folder any more."""

    def __init__(self) -> None:
        super().__init__(
            "the run was taken over by another process while this one showed no sign of life (suspended, or "
            "cut off from the disk): this one has stopped and left everything as that one has it"
        )


class Interrupted(KeyboardInterrupt):
    """A run was asked to stop, has saved its state and goes on by the same command.

    signal: the name of what asked, if that is known.
    """

    def __init__(self, message: str = "", signal: str | None = None):
        super().__init__(message)
        self.signal = signal


EXIT_CRASH, EXIT_BAD_INPUT, EXIT_BUSY, EXIT_SAVED, EXIT_AT_ONCE = 1, 2, 3, 75, 130
"""Exit codes of the command line and the worker: a bug or crash, bad input, a run that another process is
doing, stopped with its state saved (the system's own code for "try again"), stopped at once."""


def exit_code(error: BaseException | None) -> int:
    """The exit code that tells what ended a run; 0 for None."""
    if error is None:
        return 0
    for kind, code in (
        (Busy, EXIT_BUSY),
        (CuttlefishError, EXIT_BAD_INPUT),
        (Interrupted, EXIT_SAVED),
        (KeyboardInterrupt, EXIT_AT_ONCE),
    ):
        if isinstance(error, kind):
            return code
    return EXIT_CRASH
