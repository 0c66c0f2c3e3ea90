"""The origin of a measurement and its file name."""

import re
from pathlib import Path
from typing import Any

import torch

from cuttlefish.record.provenance import device_name, git_commit, git_dirty, package_versions

RESULTS = Path(__file__).resolve().parents[1] / "results" / "bench"


def origin(device: torch.device) -> dict[str, Any]:
    """Return hardware, threads and code, as contained in every file of results/bench."""
    return {
        "hardware": device_name(str(device)),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "commit": git_commit(),
        "dirty": git_dirty(),
        "packages": package_versions(),
    }


def file_of(name: str, hardware: str, folder: Path = RESULTS) -> Path:
    """Return `<folder>/<name>-<hardware>.json`."""
    return folder / f"{name}-{re.sub(r'[^a-z0-9]+', '-', hardware.lower()).strip('-')}.json"
