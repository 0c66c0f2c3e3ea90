"""One process a run: a lock file in the run folder with its owner and a heartbeat."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cuttlefish.errors import Busy, CuttlefishError
from cuttlefish.run_folder import LOCK

log = logging.getLogger("cuttlefish.lock")

BEAT_SECONDS = 10.0
DEAD_SECONDS = 90.0
"""A lock of another machine without a heartbeat for so long has lost its owner."""


class RunLock:
    """A context manager: inside it, no other process has this lock. Raises Busy on entering if one has.

    On one machine the kernel holds the lock and drops it with its owner, however that ends. A file system that does not carry
    locks between machines is covered by the heartbeat. wall_seconds: what the run has taken so far, written with each beat;
    `lost_seconds` is that of an owner that died with the lock.
    """

    def __init__(self, folder: Path, wall_seconds: Callable[[], float], beat_seconds: float = BEAT_SECONDS):
        self.path, self.wall_seconds, self.beat_seconds = folder / LOCK, wall_seconds, beat_seconds
        self.lost_seconds = 0.0
        self._ended = threading.Event()

    def __enter__(self) -> RunLock:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = self._locked()
        except OSError as error:
            raise CuttlefishError(f"cannot write to the run folder {self.path.parent}: {error.strerror}") from error
        self._beat()
        self._thread = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()
        try:
            self.path.unlink(missing_ok=True)
        finally:
            os.close(self._handle)

    def _locked(self) -> int:
        while True:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self._take(handle)
            except BaseException:
                os.close(handle)
                raise
            if self._is_current(handle):
                return handle
            os.close(handle)  # its owner finished and removed it between the two calls

    def _take(self, handle: int) -> None:
        owner = _content(handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"{self.path.parent} is being run by {_named(owner)}: wait for it, or stop it first") from None
        owner = _content(handle)
        if owner.get("machine", _machine()) != _machine():
            self._outwait()
        self.lost_seconds = owner.get("wall_seconds", 0.0)

    def _outwait(self) -> None:
        """Wait until the owner on another machine has been silent for long enough. Raises Busy at its next sign of life.

        A job that its scheduler moves to another machine finds the lock that the lost one has left: it must not give up.
        """
        first, told = self._last_beat(), False
        while (last := self._last_beat()) is not None and (quiet := _now(self.path) - last) < DEAD_SECONDS:
            if last != first:
                raise Busy(f"{self.path.parent} is being run on another machine, which has just shown a sign of life: wait for it, or stop it first")
            if not told:
                told = True
                log.warning("%s has the lock of another machine: waiting %.0f s for a sign of its life", self.path.parent, DEAD_SECONDS - quiet)
            time.sleep(min(self.beat_seconds / 10, DEAD_SECONDS - quiet))

    def _last_beat(self) -> float | None:
        """Opened anew each time: only that makes a network file system ask its server. None once its owner has finished and removed it."""
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

    def _beat(self) -> None:
        owner = {"pid": os.getpid(), "machine": _machine(), "wall_seconds": round(self.wall_seconds(), 3), "at": round(time.time())}
        # One write of constant length: a reader sees this beat or the last one.
        os.pwrite(self._handle, json.dumps(owner).ljust(255).encode() + b"\n", 0)

    def _beat_on(self) -> None:
        while not self._ended.wait(self.beat_seconds):
            try:
                self._beat()
            except OSError:  # a full disk must not end the heartbeat for good
                continue


def _content(handle: int) -> dict[str, Any]:
    try:
        owner = json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _named(owner: dict[str, Any]) -> str:
    return f"process {owner['pid']}" if "pid" in owner else "another process"


def _machine() -> str:
    """An identity that names no machine: the kernel's random number of this boot."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


def _now(path: Path) -> float:
    """The file system's own time of day, which may differ from this machine's."""
    probe = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
