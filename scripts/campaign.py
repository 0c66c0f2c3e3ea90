"""The most valuable missing runs within a budget of minutes, on this machine or, from a bundle, on one with torch only.

    python -m scripts.campaign run --minutes 9 --scale paper      here; or in the folder of a bundle, without --scale
    python -m scripts.campaign bundle FOLDER --scale paper        code, resolved configs and the order, for another machine
    python -m scripts.campaign import ARCHIVE                     checks an archive and adds its records to results/records

`run` ends with an archive of the record of every run that it has ever started, whatever became of it. Run it again to go on.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cuttlefish.display.format import counted
from cuttlefish.errors import EXIT_BAD_INPUT, CuttlefishError, exit_code
from cuttlefish.plan.archive import pack, unpack
from cuttlefish.plan.campaign import LEDGER, MANIFEST, Campaign
from cuttlefish.record.folder import RECORD
from cuttlefish.record.provenance import utc_now

ROOT = Path(__file__).resolve().parent.parent
REPORTED = "results/campaigns"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return options.do(options)
    except CuttlefishError as error:
        print(f"cuttlefish: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT


def _run(options: argparse.Namespace) -> int:
    if options.data:
        os.environ["CUTTLEFISH_DATA"] = str(options.data.resolve())
    home = options.root
    if not (home / MANIFEST).exists():
        home = options.root / "runs" / f"campaign-{options.scale}"
        _write_manifest(home, options)
    campaign, code = Campaign.read(home, options.root), 0
    try:
        print(
            f"{counted(campaign.work(60 * options.minutes), 'run')} started in this slice; of all {len(campaign.runs)}: {campaign.standing()}"
        )
    except KeyboardInterrupt as error:
        print("stopped; the same command goes on")
        code = exit_code(error)
    stamp = utc_now().translate(str.maketrans("", "", ":-"))[:15]
    print(
        f"the records of all runs started so far: {pack(campaign, options.out or home / f'records-{stamp}.tar.gz')}"
    )
    return code


def _bundle(options: argparse.Namespace) -> int:
    from cuttlefish.plan.bundle import write_bundle

    write_bundle(options.folder, _ordered(options), options.scale, options.root)
    data = "its data where CUTTLEFISH_DATA or --data points to"
    print(
        f"{options.folder}: take it to the other machine, with {data}, and run there: python -m scripts.campaign run --minutes 9"
    )
    return 0


def _import(options: argparse.Namespace) -> int:
    from scripts.records import import_run

    refused = 0
    with tempfile.TemporaryDirectory() as folder:
        runs = unpack(options.archive, Path(folder))
        for run in runs:
            try:
                if not (run / RECORD).exists():
                    raise CuttlefishError("it left no record: it was killed before it could write one")
                print(
                    f"{run.name}: {import_run(run, options.root / 'results' / 'records').relative_to(options.root)}"
                )
            except CuttlefishError as error:
                refused += 1
                print(f"{run.name}: not imported: {error}", file=sys.stderr)
        report = options.root / REPORTED / f"{options.archive.name.removesuffix('.tar.gz')}.jsonl"
        report.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(folder) / LEDGER, report)
    print(
        f"{counted(len(runs), 'run')} started, {refused} not imported; the ledger is {report.relative_to(options.root)}"
    )
    return 1 if refused else 0


def _write_manifest(home: Path, options: argparse.Namespace) -> None:
    from cuttlefish.plan.bundle import write_manifest

    write_manifest(home, _ordered(options), options.scale, options.root)


def _ordered(options: argparse.Namespace) -> list:
    from cuttlefish.plan.manifest import ordered_runs, read_order
    from scripts.tables import tables_spec

    return ordered_runs(
        read_order(options.root / "results" / "campaign.yaml", options.scale),
        tables_spec(options.root),
        options.scale,
        options.root,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.campaign",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="run | bundle | import")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--scale", default="reduced", choices=["smoke", "reduced", "paper"])
    shared.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    run = commands.add_parser("run", parents=[shared])
    run.add_argument("--minutes", type=float, default=9.0)
    run.add_argument("--data", type=Path, help="the folder with the data sets (CUTTLEFISH_DATA)")
    run.add_argument("--out", type=Path, help="the archive")
    run.set_defaults(do=_run)
    bundle = commands.add_parser("bundle", parents=[shared])
    bundle.add_argument("folder", type=Path)
    bundle.set_defaults(do=_bundle)
    import_ = commands.add_parser("import", parents=[shared])
    import_.add_argument("archive", type=Path)
    import_.set_defaults(do=_import)
    return parser


if __name__ == "__main__":
    sys.exit(main())
