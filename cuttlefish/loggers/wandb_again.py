"""W&B after the fact: a lost project made again from records, and what runs left offline sent to the server."""

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cuttlefish.config.schema import WandbConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.loggers.base import RunInfo
from cuttlefish.loggers.wandb import UNSENT, WandbLogger
from cuttlefish.record.fields import Record
from cuttlefish.record.folder import RECORD, read_epochs, read_profile, read_ranks

SENT = "*.wandb.synced"
"""What W&B leaves beside a file that it has sent whole; where it has not, it may say so and end well."""
SECONDS = 600.0
"""What the upload of one run may take: without an answer W&B would try for days."""


def log_again(record: Record, source: Path, settings: WandbConfig, folder: Path) -> str:
    """Log a run once more from its record and the files beside it (config, epoch rows, ranks, profile, summary); W&B's id of it.

    source: the record's folder, which stays as it is. folder: where W&B writes. The id follows from the record, so that a second
    time makes no second run.
    """
    identity = identity_of(record)
    logger = WandbLogger(settings, identity, stop_seconds=SECONDS)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        logger.start(RunInfo(folder, config_of(record), record.run_key))
        profile = read_profile(source)
        if profile:
            logger.profile(profile)
        _log_rows(logger, read_epochs(source), read_ranks(source))
        logger.finish(record)
    finally:
        logger.close()
    return identity


def identity_of(record: Record) -> str:
    started = hashlib.sha256(f"{record.started} {record.device}".encode()).hexdigest()[:6]
    return re.sub(r"[^\w-]", "_", f"{record.run_key[:40]}-{started}")


def config_of(record: Record) -> dict[str, Any]:
    """The record's config; of a record without one, what else tells its cell."""
    named = {axis: {"name": getattr(record, axis)} for axis in ("model", "data", "method", "recipe")}
    return record.config or {
        **named,
        "seed": record.seed,
        "scale": record.scale,
        "experiment_name": record.experiment_name,
    }


def _log_rows(logger: WandbLogger, epochs: list[dict[str, Any]], ranks: list[dict[str, Any]]) -> None:
    """In the order of the run: the ranks after so many epochs come before the next epoch's row."""
    for row in epochs:
        logger.ranks([rank for rank in ranks if rank["epoch"] == row["epoch"] - 1])
        logger.epoch({"seconds": {}, **row})
    last = epochs[-1]["epoch"] if epochs else 0
    logger.ranks([rank for rank in ranks if rank["epoch"] >= last])


def waiting(roots: Sequence[Path]) -> Iterator[Path]:
    """W&B's folders of runs that have ended and were not sent yet, those of one run in the order they were written."""
    for root in roots:
        offline, online = (
            root.rglob("wandb/offline-run-*"),
            (path.parent for path in root.rglob(f"wandb/run-*/{UNSENT}")),
        )
        for folder in sorted([*offline, *online], key=lambda folder: folder.name.removeprefix("offline-")):
            files = list(folder.glob("*.wandb"))
            sent = list(folder.glob(SENT))
            if files and not sent and (folder.parent.parent / RECORD).exists():
                yield folder


def send(folder: Path, settings: WandbConfig, seconds: float = SECONDS) -> None:
    """Hand one of W&B's offline folders to its own `sync`. Raises CuttlefishError if that fails or takes too long."""
    where = [
        word
        for name in ("project", "entity")
        if getattr(settings, name)
        for word in (f"--{name}", getattr(settings, name))
    ]
    command = [sys.executable, "-m", "wandb", "sync", "--include-online", *where, str(folder)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise CuttlefishError(
            f"{folder}: W&B's server did not answer within {seconds:.0f} s; try again later"
        ) from None
    if done.returncode or not list(folder.glob(SENT)):
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise CuttlefishError(f"{folder}: {said[-1] if said else 'wandb sync failed without a word'}")
