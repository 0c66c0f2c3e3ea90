"""What tells the machines of a shared folder apart, and the locks that hold on one of them."""

import fcntl
import hashlib
import socket
import uuid
from pathlib import Path


def machine_id() -> str:
    """Return an anonymous identity of this machine: the kernel's boot id, or a digest."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return hashlib.sha256(f"{socket.gethostname()} {uuid.getnode()}".encode()).hexdigest()[:32]


def take_kernel_lock(handle: int) -> bool:
    """Lock an open file until it is closed or the process ends; return False if another process has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
