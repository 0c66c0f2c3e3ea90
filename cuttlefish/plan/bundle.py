"""What a machine with torch only needs to go through a campaign: the code, a resolved config a run, and the order."""

import json
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cuttlefish.config.validate import to_dict
from cuttlefish.errors import CuttlefishError
from cuttlefish.plan.campaign import CONFIGS, MANIFEST
from cuttlefish.plan.planned_run import PlannedRun
from cuttlefish.record.atomic import write_atomic
from cuttlefish.record.folder import RECORD
from cuttlefish.record.provenance import COMMIT, git_commit, git_dirty
from cuttlefish.record.record import read_record

CODE = ("cuttlefish", "baselines", "scripts/campaign.py", "scripts/records.py", "pyproject.toml")
RECORDS = Path("results/records")


def write_manifest(home: Path, runs: Iterable[PlannedRun], scale: str, root: Path) -> None:
    """home/manifest.json and home/configs/<run key>.json, in place of older ones."""
    runs = list(runs)
    for run in runs:
        write_atomic(home / CONFIGS / f"{run.run_key}.json", json.dumps(_config(run, root), indent=1) + "\n")
    origin = {"commit": git_commit(root / "cuttlefish"), "dirty": git_dirty(root / "cuttlefish")}
    write_atomic(
        home / MANIFEST,
        json.dumps({"scale": scale, **origin, "runs": [asdict(run) for run in runs]}, indent=1) + "\n",
    )


def write_bundle(target: Path, runs: Iterable[PlannedRun], scale: str, root: Path) -> Path:
    """The folder `target` with everything in it. Raises CuttlefishError if it exists, or the code is not what its commit says."""
    if target.exists():
        raise CuttlefishError(f"{target} exists: remove it, or name another folder")
    if git_dirty(root / "cuttlefish") is not False:
        raise CuttlefishError(
            "the code differs from its commit, so no record of the bundle could name where it came from: commit first"
        )
    runs = list(runs)
    for name in _tracked(root):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, target / name)
    write_atomic(
        target / COMMIT, json.dumps({"commit": git_commit(root / "cuttlefish"), "dirty": False}) + "\n"
    )
    write_manifest(target, runs, scale, root)
    _copy_matched(
        {run.waits_for for run in runs if run.waits_for} | {run.run_key for run in runs}, root, target
    )
    return target


def _config(run: PlannedRun, root: Path) -> dict[str, Any]:
    """As the front door would resolve it, without what needs more than torch."""
    from cuttlefish.config.compose import compose_config  # Hydra

    config = to_dict(compose_config(root / "conf", list(run.words)))
    config["sink"] |= {"plots": False, "wandb": {**config["sink"]["wandb"], "mode": "disabled"}}
    return config


def _tracked(root: Path) -> list[str]:
    """Files of the code that git knows, so that nothing else leaves the machine."""
    found = subprocess.run(
        ["git", "ls-files", "--", *CODE], cwd=root, check=True, capture_output=True, text=True
    )
    return found.stdout.splitlines()


def _copy_matched(keys: set[str], root: Path, target: Path) -> None:
    """Records of runs that are finished, or whose sizes others take."""
    for path in sorted((root / RECORDS).rglob(RECORD)):
        if read_record(path).get("run_key") in keys:
            copy = target / path.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
