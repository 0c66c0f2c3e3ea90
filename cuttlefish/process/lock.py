"""One process a run: a lock file in the run folder with its owner and a heartbeat."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import secrets
import signal
import socket
import threading
import time
import uuid
from _thread import interrupt_main
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cuttlefish.errors import Busy, CuttlefishError
from cuttlefish.record.folder import LOCK

log = logging.getLogger("cuttlefish.lock")

BEAT_SECONDS = 10.0
DEAD_SECONDS = 90.0
"""A lock of another machine without a heartbeat for so long has lost its owner."""
SETTLE_SECONDS = 1.0
"""Of several machines that take a lock over at once, the last to write has it: by now all have written."""
NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""What a file system without kernel locks answers."""


class RunLock:
    """A context manager: inside it, no other process has this lock. Raises Busy on entering if one has.

    On one machine the kernel holds the lock and drops it with its owner, however that ends. A file system
    that does not carry locks between machines is covered by the heartbeat, which names its owner by a nonce:
    an owner that finds another's asks its own run to stop.

    Args:
        wall_seconds: What the run has taken so far; written with each beat.

    Attributes:
        lost_seconds: The wall seconds of an owner that died with the lock.
    """

    def __init__(self, folder: Path, wall_seconds: Callable[[], float], beat_seconds: float = BEAT_SECONDS):
        self.path, self.wall_seconds, self.beat_seconds = folder / LOCK, wall_seconds, beat_seconds
        self.lost_seconds = 0.0
        self.nonce, self.machine = secrets.token_hex(8), machine_id()
        self._ended = threading.Event()

    def __enter__(self) -> RunLock:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = self._locked()
        except OSError as error:
            raise CuttlefishError(
                f"cannot write to the run folder {self.path.parent}: {error.strerror}"
            ) from error
        self._thread = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()
        try:  # whatever becomes of it, what ended the run is what counts
            try:
                if self._is_ours():
                    self.path.unlink(missing_ok=True)
            finally:
                os.close(self._handle)
        except OSError as error:
            log.warning("the lock %s is left: %s", self.path, error.strerror)

    def _locked(self) -> int:
        while True:
            handle, is_new = self._opened()
            try:
                if self._take(handle, is_new):
                    return handle
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)  # its owner finished and removed it meanwhile

    def _opened(self) -> tuple[int, bool]:
        """Open the file, and tell whether this made it.

        That is atomic on network file systems too, so of several machines only one starts a run afresh.
        """
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), False

    def _take(self, handle: int, is_new: bool) -> bool:
        """Take the lock; False where the file has gone meanwhile."""
        held = self._held_by_kernel(handle)
        owner = _content(handle)
        certain = held and owner.get("machine") == self.machine or is_new and not owner
        if owner and not certain:
            self._outwait()
        elif not certain:  # made by a machine that has yet to write its first beat, or torn
            time.sleep(SETTLE_SECONDS)
            if self._owner_there():
                return False
        if not self._is_current(handle):
            return False
        self._beat(handle)
        if not certain:
            time.sleep(SETTLE_SECONDS)
        if not self._is_ours():
            raise Busy(
                f"{self.path.parent} has just been taken by another process: wait for it, or stop it first"
            )
        self.lost_seconds = owner.get("wall_seconds", 0.0)
        return True

    def _held_by_kernel(self, handle: int) -> bool:
        owner = _content(handle)
        try:
            is_free = take_kernel_lock(handle)
        except OSError as error:
            if error.errno in NO_LOCKS:
                return False
            raise
        if not is_free:
            raise Busy(f"{self.path.parent} is being run by {_named(owner)}: wait for it, or stop it first")
        return True

    def _outwait(self) -> None:
        """Wait until the owner on another machine has been silent for long enough. Raises Busy at its next
        sign of life.

        A job that its scheduler moves to another machine finds the lock of the lost one: it must not give up.
        """
        first = self._last_beat()
        if first is None:
            return
        # Its age by the file system's clock, once; from then on by one's own, for another's may be an hour
        # ahead.
        patience = min(DEAD_SECONDS - (self._now() - first), DEAD_SECONDS)
        until = time.monotonic() + patience
        told = False
        while (last := self._last_beat()) is not None and (left := until - time.monotonic()) > 0:
            if last != first:
                raise Busy(
                    f"{self.path.parent} is being run on another machine, which has just shown a sign of "
                    "life: wait for it, or stop it first"
                )
            if not told:
                told = True
                log.warning(
                    "%s has the lock of another machine: waiting %.0f s for a sign of its life",
                    self.path.parent,
                    patience,
                )
            time.sleep(min(self.beat_seconds / 10, left))

    def _last_beat(self) -> float | None:
        """Return the time of the file, None once its owner has removed it.

        It is opened anew each time: only that makes a network file system ask its server.
        """
        try:
            with self.path.open("rb") as file:
                return os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return None

    def _is_current(self, handle: int) -> bool:
        try:
            return os.stat(self.path).st_ino == os.fstat(handle).st_ino
        except FileNotFoundError:
            return False

    def _owner_there(self) -> dict[str, Any] | None:
        """Return what the lock says now, opened anew as in `_last_beat`; None where there is none."""
        try:
            with self.path.open("rb") as file:
                return _content(file.fileno())
        except FileNotFoundError:
            return None

    def owned(self) -> bool:
        """Tell whether no other process has taken it over. A file that cannot be read just now says
        nothing."""
        try:
            return self._is_ours()
        except OSError:
            return True

    def _is_ours(self) -> bool:
        """A torn one is ours still: a disk that fills up may have taken a part of the last beat."""
        owner = self._owner_there()
        return owner is not None and owner.get("nonce", self.nonce if not owner else None) == self.nonce

    def _beat(self, handle: int) -> None:
        wall_seconds = round(self.wall_seconds(), 3)
        owner = {
            "pid": os.getpid(),
            "machine": self.machine,
            "wall_seconds": wall_seconds,
            "at": round(time.time()),
            "nonce": self.nonce,
        }
        # One write of constant length: a reader sees this beat or the last one.
        beat = json.dumps(owner).ljust(255).encode() + b"\n"
        if os.pwrite(handle, beat, 0) < len(beat):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _beat_on(self) -> None:
        told = False
        while not self._ended.wait(self.beat_seconds):
            try:
                if self._is_ours():
                    self._beat(self._handle)
                    continue
            except OSError:  # a full disk must not end the heartbeat for good
                continue
            if not told:
                told = True
                log.warning(
                    "%s was taken over by another process while this one showed no sign of life: "
                    "this one stops",
                    self.path.parent,
                )
            # As a scheduler would; without effect where nobody handles it, so it is asked again.
            interrupt_main(signal.SIGTERM)

    def _now(self) -> float:
        """Return the file system's own time of day, which may differ from this machine's."""
        probe = self.path.with_name(f".{self.path.name}.{self.nonce}.tmp")
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)


def take_kernel_lock(handle: int) -> bool:
    """Lock an open file until it is closed or the process ends; False where another process has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _content(handle: int) -> dict[str, Any]:
    try:
        owner = json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _named(owner: dict[str, Any]) -> str:
    return f"process {owner['pid']}" if "pid" in owner else "another process"


def machine_id() -> str:
    """Return an identity that names no machine: the kernel's random number of this boot, or a digest."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return hashlib.sha256(f"{socket.gethostname()} {uuid.getnode()}".encode()).hexdigest()[:32]
