"""The one exception a user is meant to read."""


class CuttlefishError(Exception):
    """Bad input or environment, told in one sentence: what was wrong, where it came from, what would be right.

    The front door prints the sentence without a traceback and exits with a non-zero code.
    """
