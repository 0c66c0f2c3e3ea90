"""Data files: `python -m scripts.data unpack SRC DEST` rebuilds packed CIFAR, `check [KIND …]` verifies what is there."""

import argparse
import sys
from pathlib import Path

from cuttlefish.config.schema import DataConfig
from cuttlefish.data.files import data_digest, data_root
from cuttlefish.data.packed import unpack
from cuttlefish.data.published import FILE_SETS
from cuttlefish.errors import CuttlefishError


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except CuttlefishError as error:
        print(error, file=sys.stderr)
        return 1


def unpack_all(options: argparse.Namespace) -> int:
    """SRC is a `.packed` folder or one that holds such folders."""
    found = [
        (file_set, folder)
        for file_set in FILE_SETS.values()
        if file_set.packed
        for folder in (options.source, options.source / file_set.packed)
        if folder.name == file_set.packed and folder.is_dir()
    ]
    if not found:
        packed = " or ".join(file_set.packed for file_set in FILE_SETS.values() if file_set.packed)
        raise CuttlefishError(f"{options.source} neither is nor holds a folder {packed}")
    for file_set, folder in found:
        print(f"{file_set.title}: {unpack(file_set, folder, options.destination)}")
    return 0


def check(options: argparse.Namespace) -> int:
    """Exit code 0 if everything asked for is there and as published; without kinds, one intact data set is enough."""
    if unknown := sorted(set(options.kinds) - set(FILE_SETS)):
        raise CuttlefishError(
            f"Nothing to check for {', '.join(unknown)}: data sets with files are {', '.join(FILE_SETS)}"
        )
    root = data_root(DataConfig(root=options.root))
    outcomes = {kind: _outcome(DataConfig(kind=kind, root=str(root))) for kind in options.kinds or FILE_SETS}
    for kind, (intact, text) in outcomes.items():
        print(f"{FILE_SETS[kind].title}: {'ok, digest ' if intact else ''}{text}")
    judge = all if options.kinds else any
    return 0 if judge(intact for intact, _ in outcomes.values()) else 1


def _outcome(config: DataConfig) -> tuple[bool, str]:
    try:
        return True, data_digest(config)
    except CuttlefishError as error:
        return False, str(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.data", description=__doc__)
    commands = parser.add_subparsers(required=True)
    unpacking = commands.add_parser("unpack", help="rebuild the original CIFAR files from their packed form")
    unpacking.add_argument("source", type=Path, metavar="SRC")
    unpacking.add_argument("destination", type=Path, metavar="DEST")
    unpacking.set_defaults(command=unpack_all)
    checking = commands.add_parser("check", help="verify the data sets below the data root")
    checking.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(FILE_SETS)}")
    checking.add_argument("--root", help="instead of CUTTLEFISH_DATA or ./data")
    checking.set_defaults(command=check)
    return parser


if __name__ == "__main__":
    sys.exit(main())
