"""GPUs of this machine for one job among several: each takes devices that no other job has, and keeps them until it ends.

For launchers that start several jobs on one machine without handing out its GPUs; SLURM and Ray do that themselves.
"""

import fcntl
import os
from functools import cache
from itertools import count
from pathlib import Path

SHARING = ("JoblibLauncher", "LocalLauncher")
"""The launchers (their classes) whose jobs have to come to terms by themselves; so have those that are a front door of their own."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
_held: dict[str, int] = {}
"""Device -> the open file that holds it. A worker process that runs several jobs keeps its devices: CUDA cannot change them."""


def take_devices(number: int, folder: Path) -> list[str]:
    """Take `number` of the visible devices for this process's lifetime and make only them visible. To be called before CUDA is used.

    folder: for the lock files; the kernel drops the locks with the process, however it ends. The free ones come first, in order;
    with more jobs than devices they are shared, no device by two jobs more than another. Empty where there are no devices.
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
    """What was visible before this process took any."""
    return visible_devices()


def visible_devices() -> list[str]:
    """The GPUs this process may use: those of CUDA_VISIBLE_DEVICES, or all, without touching any."""
    named = os.environ.get(VISIBLE)
    if named is not None:
        return [device.strip() for device in named.split(",") if device.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def _take_one(free: list[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for share in count():
        for device in free:
            handle = os.open(folder / f"{_machine()}-{device}.{share}", os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                continue
            _held[device] = handle
            return


def _machine() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip()[:8] if path.exists() else os.uname().nodename
