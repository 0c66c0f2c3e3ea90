"""W&B: send what runs left offline, or make a lost project again from records.

    python -m scripts.wandb_runs upload                         finished runs under runs/ that were not sent yet
    python -m scripts.wandb_runs upload runs/reduced --list     which they are; sends nothing
    python -m scripts.wandb_runs rebuild --project cuttlefish   every record of results/records, logged again and sent
    python -m scripts.wandb_runs rebuild --offline --out DIR    the same into a folder, for `wandb sync` later

A login is W&B's own affair (`wandb login` or WANDB_API_KEY). Rebuilding twice makes no second run.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from cuttlefish.config.schema import WandbConfig
from cuttlefish.errors import EXIT_BAD_INPUT, CuttlefishError
from cuttlefish.evidence.records import load_evidence
from cuttlefish.loggers.wandb_again import log_again, send, waiting

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_intermixed_args(arguments)
    try:
        for path in options.paths:
            if not path.exists():
                raise CuttlefishError(f"there is no folder {path}")
        return _upload(options) if options.action == "upload" else _rebuild(options)
    except CuttlefishError as error:
        print(f"cuttlefish: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT


def _upload(options: argparse.Namespace) -> int:
    folders = list(waiting(options.paths or [ROOT / "runs"]))
    failed = 0
    for folder in folders:
        try:
            if not options.list:
                send(folder, WandbConfig(project=options.project or "", entity=options.entity))
            print(folder)
        except CuttlefishError as error:
            failed += 1
            print(f"cuttlefish: {error}", file=sys.stderr)
    print(f"{len(folders) - failed} of {len(folders)} {'waiting' if options.list else 'sent'}")
    return 1 if failed else 0


def _rebuild(options: argparse.Namespace) -> int:
    if options.offline and not options.out:
        raise CuttlefishError(
            "rebuild --offline needs --out FOLDER: what it writes is for `wandb sync` later"
        )
    collections = [load_evidence(path) for path in options.paths or [ROOT / "results" / "records"]]
    mode = "offline" if options.offline else "online"
    settings = WandbConfig(mode=mode, project=options.project or WandbConfig.project, entity=options.entity)
    with tempfile.TemporaryDirectory() as scratch:
        out, failed, runs = (
            options.out or Path(scratch),
            0,
            [run for collection in collections for run in collection.runs],
        )
        for number, run in enumerate(runs):
            try:
                print(
                    log_again(
                        run.record,
                        run.path.parent,
                        settings,
                        out / f"{number:05d}-{Path(run.record.run_key).name}",
                    )
                )
            except Exception as error:  # W&B raises what it likes; the others are logged all the same
                failed += 1
                print(
                    f"cuttlefish: {run.path}: {type(error).__name__}: {' '.join(str(error).split())}",
                    file=sys.stderr,
                )
    for left in (item for collection in collections for item in collection.left_out):
        print(f"left out: {left.path}: {left.reason}", file=sys.stderr)
    print(f"{len(runs) - failed} of {len(runs)} logged again")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.wandb_runs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=["upload", "rebuild"])
    parser.add_argument(
        "paths", nargs="*", type=Path, help="upload: folders of runs; rebuild: folders of records"
    )
    parser.add_argument("--project", help="default: that of the runs; of rebuild, cuttlefish")
    parser.add_argument("--entity")
    parser.add_argument("--list", action="store_true", help="of upload: only say what would be sent")
    parser.add_argument("--offline", action="store_true", help="of rebuild: write W&B's files, send nothing")
    parser.add_argument("--out", type=Path, help="of rebuild: where W&B writes (default: a scratch folder)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
