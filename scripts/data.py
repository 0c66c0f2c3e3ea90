"""Verify data files: `python -m scripts.data check [KIND ...]` compares them with the published checksums."""

import argparse
import sys

from cuttlefish.config.schema import DataConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.tasks.files import data_digest
from cuttlefish.tasks.registry import data_sets
from scripts.command import new_parser


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if all requested files are as published; without kinds, one intact set is enough."""
    titles = {kind: item.title for kind, item in data_sets().items() if item.files}
    options = _parser(list(titles)).parse_args(arguments)
    if unknown := sorted(set(options.kinds) - set(titles)):
        names = ", ".join(titles)
        print(f"Nothing to check for {', '.join(unknown)}: data sets with files are {names}", file=sys.stderr)
        return 1
    intact = []
    for kind in options.kinds or titles:
        try:
            found = f"ok, digest {data_digest(DataConfig(kind=kind, root=options.root))}"
        except CuttlefishError as error:
            print(f"{titles[kind]}: {error}")
        else:
            print(f"{titles[kind]}: {found}")
            intact.append(kind)
    return 0 if len(intact) >= (len(options.kinds) or 1) else 1


def _parser(kinds: list[str]) -> argparse.ArgumentParser:
    parser = new_parser("data", __doc__)
    parser.add_argument("action", choices=["check"])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(kinds)}")
    parser.add_argument("--root", help="instead of CUTTLEFISH_DATA or ./data")
    return parser


if __name__ == "__main__":
    sys.exit(main())
