"""Runs one resolved config: skip if finished, resume if begun, train, record. Needs neither Hydra nor W&B.

    python -m cuttlefish.worker resolved.yaml
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from cuttlefish.config import Config
from cuttlefish.engine.session import Session
from cuttlefish.errors import CuttlefishError
from cuttlefish.files import write_atomic
from cuttlefish.identity import run_folder, run_key
from cuttlefish.methods import build_method, load_method
from cuttlefish.record import read_record
from cuttlefish.report.summary import as_text, run_summary
from cuttlefish.run_folder import RECORD, read_profile, read_ranks
from cuttlefish.validate import load_config, to_dict

logger = logging.getLogger("cuttlefish")
RESOLVED = "resolved.yaml"


@dataclass(frozen=True)
class Run:
    """A config with its identity."""

    config: Config
    key: str
    folder: Path


def run_config(config: Config) -> dict[str, Any]:
    """Train `config` unless its record says it is finished; the record. Raises CuttlefishError on bad input."""
    run = identify(config)
    finished = finished_record(run.folder)
    if finished is not None:
        _same_run(run)
        print(f"already finished, not run again ({run.folder}):\n{as_text(run_summary(finished, read_profile(run.folder), read_ranks(run.folder)))}")
        return finished
    session = Session(run.config, run.key, run.folder)
    _same_run(run)
    _claim(run)
    return session.run()


def identify(config: Config) -> Run:
    """The run key and folder of a resolved config; the data's digest is part of the key, so the data must be there."""
    from cuttlefish.data.files import data_digest

    settings = build_method(config.method).settings
    method = {"name": config.method["name"], "preset": config.method.get("preset"), **to_dict(settings)}
    config = replace(config, method={key: value for key, value in method.items() if value is not None})
    cls = load_method(config.method["name"])
    key = run_key(to_dict(config), data_digest(config.data), cls.version, to_dict(cls.Settings()))
    return Run(config, key, run_folder(config, key))


def finished_record(folder: Path) -> dict[str, Any] | None:
    """The record of a run that went through, or None."""
    if not (folder / RECORD).exists():
        return None
    record = read_record(folder)
    return record if record.get("status") == "finished" else None


def _same_run(run: Run) -> None:
    """Raise CuttlefishError if the folder holds another config's run."""
    path = run.folder / RESOLVED
    if path.exists():
        there = yaml.safe_load(path.read_text(encoding="utf-8")).get("run_key")
        if there != run.key:
            raise CuttlefishError(f"{run.folder} holds run {there}, and this is run {run.key}: choose another run_dir or remove it")


def _claim(run: Run) -> None:
    """Write resolved.yaml, all that a machine without Hydra needs."""
    try:
        content = yaml.safe_dump({"run_key": run.key, **to_dict(run.config)}, sort_keys=False)
        write_atomic(run.folder / RESOLVED, content)
    except OSError as error:
        raise CuttlefishError(f"cannot write to the run folder {run.folder}: {error.strerror}") from error


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m cuttlefish.worker resolved.yaml", file=sys.stderr)
        return 2
    try:
        mapping = yaml.safe_load(Path(arguments[0]).read_text(encoding="utf-8"))
        mapping.pop("run_key", None)
        run_config(load_config(mapping))
    except CuttlefishError as error:
        print(f"cuttlefish: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
