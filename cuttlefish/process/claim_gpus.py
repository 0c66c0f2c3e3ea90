"""Share the GPUs of this machine among jobs: each takes devices that no other has, until it ends.

For launchers that start several jobs on one machine without assigning its GPUs; SLURM and Ray assign them.
"""

import os
from functools import cache
from itertools import count
from pathlib import Path

from cuttlefish.process.lock import machine_id, take_kernel_lock

SHARING = ("JoblibLauncher", "LocalLauncher")
"""The launchers, by class, whose jobs must share the devices by themselves; so must those of `processes`."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
_held: dict[str, int] = {}
"""Device -> the open file that holds it. A process with several jobs keeps them, as CUDA cannot change."""


def take_devices(number: int, folder: Path) -> list[str]:
    """Take devices for this process's lifetime and make only them visible. Call it before CUDA is used.

    Free devices come first, in order; with more jobs than devices they are shared as evenly as possible.

    Args:
        number: How many of the visible devices.
        folder: For the lock files; the kernel drops the locks when the process ends.

    Returns:
        The devices, none where there are none.
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
    """The devices that were visible before this process took any."""
    return visible_devices()


def visible_devices() -> list[str]:
    """The GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, or all. Touches none."""
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
