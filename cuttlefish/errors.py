"""Errors with a message for the user, and exit codes."""


class CuttlefishError(Exception):
    """Bad input or environment, in one sentence: what was wrong, where it came from, what would be right.

    The command line prints the message without a traceback and exits with a non-zero code.
    """


class Busy(CuttlefishError):
    """Another live process is training this run."""


class TakenOver(Busy):
    """Another process has taken over this run; this one must not write to its folder any more."""

    def __init__(self) -> None:
        super().__init__(
            "the run was taken over by another process while this one showed no sign of life (suspended, or "
            "cut off from the disk): this one has stopped and left everything as that one has it"
        )


class Interrupted(KeyboardInterrupt):
    """A run stopped on request and saved its state; the same command resumes it.

    signal: Name of the signal that requested the stop, if known.
    """

    def __init__(self, message: str = "", signal: str | None = None):
        super().__init__(message)
        self.signal = signal


EXIT_CRASH, EXIT_BAD_INPUT, EXIT_BUSY, EXIT_SAVED, EXIT_AT_ONCE = 1, 2, 3, 75, 130
"""Exit codes of the command line and the worker: bug or crash; bad input; another process is training the
run; stopped with state saved (EX_TEMPFAIL, "try again"); stopped at once."""


def exit_code(error: BaseException | None) -> int:
    """Return the exit code for the error that ended a run; 0 for None."""
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
