"""What every script has in common: its parser, and how it reports an error."""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import wraps

from cuttlefish.errors import EXIT_BAD_INPUT, CuttlefishError

Main = Callable[[Sequence[str] | None], int]


def new_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return the parser of `python -m scripts.<name>`; the module's docstring is its description."""
    raw = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(f"python -m scripts.{name}", description=description, formatter_class=raw)


def reporting_errors(main: Main) -> Main:
    """Make a CuttlefishError or an OSError one line on standard error and the exit code of bad input."""

    @wraps(main)
    def reported(arguments: Sequence[str] | None = None) -> int:
        try:
            return main(arguments)
        except (CuttlefishError, OSError) as error:
            print(f"cuttlefish: {error}", file=sys.stderr)
            return EXIT_BAD_INPUT

    return reported
