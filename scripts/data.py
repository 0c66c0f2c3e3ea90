"""Verify data files, and unpack ImageNet's archives.

python -m scripts.data check [KIND ...]        compares files with the published checksums
python -m scripts.data imagenet TARS DEST      checks the archives in TARS and unpacks them into DEST
"""

import argparse
import sys
from pathlib import Path

from cuttlefish.config.schema import DataConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.tasks.files import data_digest
from cuttlefish.tasks.folder.unpack import unpack
from cuttlefish.tasks.registry import data_sets
from cuttlefish.tasks.sets.folder import ARCHIVES
from scripts.command import new_parser, reporting_errors


@reporting_errors
def main(arguments: list[str] | None = None) -> int:
    """Return 0 if all that was asked for is there and as published."""
    titles = {kind: item.title for kind, item in data_sets().items() if item.files}
    options = _parser(list(titles)).parse_args(arguments)
    if options.action == "check":
        return check(options.kinds, options.root, titles)
    unpack(options.archives, options.folder, ARCHIVES, lambda words: print(words, flush=True))
    return 0


def check(kinds: list[str], root: str | None, titles: dict[str, str]) -> int:
    """Compare the files of these kinds of data; without kinds, one intact set is enough."""
    if unknown := sorted(set(kinds) - set(titles)):
        names = ", ".join(titles)
        print(f"Nothing to check for {', '.join(unknown)}: data sets with files are {names}", file=sys.stderr)
        return 1
    intact = []
    for kind in kinds or titles:
        try:
            found = f"ok, digest {data_digest(DataConfig(kind=kind, root=root))}"
        except CuttlefishError as error:
            print(f"{titles[kind]}: {error}")
        else:
            print(f"{titles[kind]}: {found}")
            intact.append(kind)
    return 0 if len(intact) >= (len(kinds) or 1) else 1


def _parser(kinds: list[str]) -> argparse.ArgumentParser:
    parser = new_parser("data", __doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    check_files = actions.add_parser("check", help="compare files with the published checksums")
    check_files.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(kinds)}")
    check_files.add_argument("--root", help="instead of CUTTLEFISH_DATA or ./data")
    imagenet = actions.add_parser("imagenet", help=f"unpack {', '.join(ARCHIVES)}; goes on where it stopped")
    imagenet.add_argument("archives", metavar="TARS", type=Path, help="the folder of the archives")
    imagenet.add_argument("folder", metavar="DEST", type=Path, help="for a run: <data root>/imagenet")
    return parser


if __name__ == "__main__":
    sys.exit(main())
