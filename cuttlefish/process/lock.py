"""Run lock: a lock file in the run folder with owner and heartbeat, for one process per run."""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
import signal
import threading
import time
from _thread import interrupt_main
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any, TypeVar

from cuttlefish.errors import Busy, CuttlefishError
from cuttlefish.process.machine import machine_id, take_kernel_lock
from cuttlefish.record.folder import LOCK

log = logging.getLogger("cuttlefish.lock")
T = TypeVar("T")

BEAT_SECONDS = 10.0
DEAD_SECONDS = 90.0
"""Time without a heartbeat after which another machine's lock counts as abandoned."""
SETTLE_SECONDS = 1.0
"""When several machines take over a lock, the last writer wins; after this time all have written."""
TAKEN_OVER = "%s was taken over by another process while this one showed no sign of life: this one stops"
WRITTEN = {
    "pid": lambda value: type(value) is int,
    "wall_seconds": lambda value: type(value) in (int, float) and 0 <= value < inf,
}
"""What an owner writes under these keys."""
NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""Error codes of file systems without kernel locks."""


class RunLock:
    """Context manager that holds the lock of a run. Raises Busy on entry if another process has it.

    On one machine the kernel holds the lock and releases it when its owner ends. Between machines without
    shared locks the heartbeat is used, which identifies its owner by a nonce: an owner that finds another's
    nonce stops its own run.

    Args:
        wall_seconds: Returns the run's wall time so far; written with each beat.

    Attributes:
        lost_seconds: Wall seconds of the previous owner, if it died with the lock.
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
        try:  # an error here must not replace the run's own error
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
            os.close(handle)  # its owner has finished and removed it

    def _opened(self) -> tuple[int, bool]:
        """Open the lock file and return whether this call created it.

        Creation is atomic on network file systems too, so that only one machine starts a new run.
        """
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), False

    def _take(self, handle: int, is_new: bool) -> bool:
        """Take the lock; return False if the file was removed meanwhile."""
        held = self._held_by_kernel(handle)
        owner = _content(handle)
        certain = held and owner.get("machine") == self.machine or is_new and not owner
        if owner and not certain:
            self._outwait()
        elif not certain:  # created by a machine before its first beat, or torn
            time.sleep(SETTLE_SECONDS)
            if self._reopened(_content):
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
        """Wait until the owner on another machine counts as dead. Raises Busy at its next heartbeat.

        A job rescheduled to another machine finds the lock of its dead predecessor and must not give up.
        """
        first = self._last_beat()
        if first is None:
            return
        # Take the age from the file system's clock once, then use our own clock: the clocks may differ.
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
                words = "%s has the lock of another machine: waiting %.0f s for a sign of its life"
                log.warning(words, self.path.parent, patience)
            time.sleep(min(self.beat_seconds / 10, left))

    def _reopened(self, read: Callable[[int], T]) -> T | None:
        """Return what `read` finds in the lock file now; None after its owner has removed it.

        Reopening it forces a network file system to ask its server.
        """
        try:
            with self.path.open("rb") as file:
                return read(file.fileno())
        except FileNotFoundError:
            return None

    def _last_beat(self) -> float | None:
        return self._reopened(lambda handle: os.fstat(handle).st_mtime)

    def _is_current(self, handle: int) -> bool:
        try:
            return os.stat(self.path).st_ino == os.fstat(handle).st_ino
        except FileNotFoundError:
            return False

    def owned(self) -> bool:
        """Return False if another process has taken the lock over; True also if it cannot be read now."""
        try:
            return self._is_ours()
        except OSError:
            return True

    def _is_ours(self) -> bool:
        """Return whether the lock has our nonce, or is torn: a full disk may have cut our last beat."""
        owner = self._reopened(_content)
        return owner is not None and owner.get("nonce", self.nonce if not owner else None) == self.nonce

    def _beat(self, handle: int) -> None:
        owner = {"pid": os.getpid(), "machine": self.machine, "nonce": self.nonce}
        owner |= {"wall_seconds": round(self.wall_seconds(), 3), "at": round(time.time())}
        # One write of constant length, so that a reader sees a whole beat.
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
                log.warning(TAKEN_OVER, self.path.parent)
            # Like a scheduler. Repeated, because it has no effect while no handler is set.
            interrupt_main(signal.SIGTERM)

    def _now(self) -> float:
        """Return the file system's clock time, which may differ from this machine's."""
        probe = self.path.with_name(f".{self.path.name}.{self.nonce}.tmp")
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)


def _content(handle: int) -> dict[str, Any]:
    """Return what an owner wrote, without what none writes; empty if it is torn or damaged."""
    try:
        owner = json.loads(os.pread(handle, 4096, 0))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(owner, dict):
        return {}
    return {key: value for key, value in owner.items() if key not in WRITTEN or WRITTEN[key](value)}


def _named(owner: dict[str, Any]) -> str:
    return f"process {owner['pid']}" if "pid" in owner else "another process"
