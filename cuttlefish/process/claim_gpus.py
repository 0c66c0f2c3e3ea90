"""Share this machine's GPUs among jobs: each holds devices of its own until it ends.

For launchers that start several jobs on one machine and, unlike SLURM and Ray, assign no GPUs.
"""

import os
from functools import cache
from itertools import count
from pathlib import Path

from cuttlefish.process.machine import machine_id, take_kernel_lock

SHARING = ("JoblibLauncher", "LocalLauncher")
"""Launcher classes whose jobs share the devices themselves (jobs of `processes` do so too)."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
_held: dict[str, int] = {}
"""Device -> its open lock file. Kept for all jobs of a process, because CUDA cannot change devices."""


def take_devices(number: int, folder: Path) -> list[str]:
    """Reserve devices for this process's lifetime and make only them visible. Call it before CUDA is used.

    Free devices come first, in order; with more jobs than devices they are shared as evenly as possible.

    Args:
        number: Number of devices to take.
        folder: Folder for the lock files; the kernel releases the locks when the process ends.

    Returns:
        The devices; empty without GPUs.
    """
    choice = _choice()
    while len(_held) < min(number, len(choice)):
        _take_one([device for device in choice if device not in _held], folder)
    mine = list(_held)[:number]
    if mine:
        os.environ[VISIBLE] = ",".join(mine)
    return mine


@cache
def _choice() -> list[str]:
    """Return the devices that were visible before this process took any."""
    return visible_devices()


def visible_devices() -> list[str]:
    """Return the GPUs this process may use, in CUDA_VISIBLE_DEVICES or all, without initialising CUDA."""
    named = os.environ.get(VISIBLE)
    if named is not None:
        return [device.strip() for device in named.split(",") if device.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def _take_one(free: list[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for share in count():
        for device in free:
            handle = os.open(folder / f"{machine_id()[:8]}-{device}.{share}", os.O_RDWR | os.O_CREAT, 0o666)
            if take_kernel_lock(handle):
                _held[device] = handle
                return
            os.close(handle)
