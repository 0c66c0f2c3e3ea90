"""Recreate a lost W&B project from records: write an offline W&B run for each, for `wandb sync` to send.

    python -m scripts.wandb_runs results/records --out again --project cuttlefish
    wandb sync again/*/wandb/offline-run-*

Repeating this creates no second run, because W&B's run id is derived from the record.
"""

import argparse
import hashlib
import re
import sys
from pathlib import Path
from typing import Any

from cuttlefish.config.schema import WandbConfig
from cuttlefish.errors import EXIT_BAD_INPUT, CuttlefishError
from cuttlefish.evidence.records import load_evidence
from cuttlefish.loggers.base import RunInfo
from cuttlefish.loggers.wandb import WandbLogger
from cuttlefish.record.fields import Record
from cuttlefish.record.folder import read_epochs, read_profile

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    settings = WandbConfig(mode="offline", project=options.project)
    try:
        for path in options.paths:
            if not path.exists():
                raise CuttlefishError(f"there is no folder {path}")
        collections = [load_evidence(path) for path in options.paths]
    except CuttlefishError as error:
        print(f"cuttlefish: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    runs = [run for collection in collections for run in collection.runs]
    for number, run in enumerate(runs):
        folder = options.out / f"{number:05d}-{Path(run.record.run_key).name}"
        print(log_record(run.record, run.path.parent, settings, folder))
    for left in (item for collection in collections for item in collection.left_out):
        print(f"left out: {left.path}: {left.reason}", file=sys.stderr)
    print(f"{len(runs)} runs; `wandb sync {options.out}/*/wandb/offline-run-*` sends them")
    return 0


def log_record(record: Record, source: Path, settings: WandbConfig, folder: Path) -> str:
    """Log a run again from its record and the files beside it: config, epochs, ranks, profile and summary.

    Args:
        source: The record's folder, which is not changed.
        folder: W&B's output folder.

    Returns:
        W&B's id of the run.
    """
    logger = WandbLogger(settings, identity_of(record))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        logger.start(RunInfo(folder, config_of(record), record.run_key))
        profile = read_profile(source)
        if profile:
            logger.profile(profile)
        logger.log_files(source, max((row["epoch"] for row in read_epochs(source)), default=0))
        logger.finish(record)
    finally:
        logger.close()
    return identity_of(record)


def identity_of(record: Record) -> str:
    started = hashlib.sha256(f"{record.started} {record.device}".encode()).hexdigest()[:6]
    return re.sub(r"[^\w-]", "_", f"{record.run_key[:40]}-{started}")


def config_of(record: Record) -> dict[str, Any]:
    """Return the record's config or, if it has none, the other fields that identify its cell."""
    named = {axis: {"name": getattr(record, axis)} for axis in ("model", "data", "method", "recipe")}
    others = {name: getattr(record, name) for name in ("seed", "scale", "experiment_name")}
    return record.config or named | others


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.wandb_runs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    records = [ROOT / "results" / "records"]
    parser.add_argument("paths", nargs="*", type=Path, default=records, help="folders of records")
    parser.add_argument("--out", type=Path, required=True, help="where W&B writes")
    parser.add_argument("--project", default=WandbConfig.project)
    return parser


if __name__ == "__main__":
    sys.exit(main())
