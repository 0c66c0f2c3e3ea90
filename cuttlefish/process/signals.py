"""Requests to stop: a terminal's Ctrl-C, a scheduler's SIGTERM or its warning signal (SIGUSR1, or submitit's SIGUSR2)."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from cuttlefish.errors import Interrupted, TakenOver

PR_SET_PDEATHSIG = 1
UNTRAINED = "before a step was trained"
HANDLED = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)


class StopSignals:
    """While it is entered, the first of these signals only sets `requested`; the trainer looks at it after every step.

    A second Ctrl-C raises KeyboardInterrupt there and then: what is on the disk is whole at any moment. Handlers can be set in
    the main thread only; elsewhere this does nothing.

    at_once: while it says where the run stands (data are read, stacks timed, layers factorized, code compiled: nothing has been
    trained that is not on the disk) the first signal already raises, as Interrupted.
    owned: whether the run is still this process's (`RunLock.owned`); who has lost it is asked to stop too, but has nothing to save.
    """

    def __init__(self) -> None:
        self.at_once = ""
        self.owned: Callable[[], bool] = lambda: True
        self.requested: str | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in HANDLED}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]
        self._before = {}

    @contextmanager
    def leaving_at_once(self, where: str) -> Iterator[None]:
        """Inside, a stop is not waited with, be it asked for now or before."""
        self.at_once = where
        try:
            if self.requested:
                self._raise()
            yield
        finally:
            self.at_once = ""

    def _raise(self) -> NoReturn:
        raise Interrupted(
            f"stopped by {self.requested} {self.at_once}; the same command goes on", self.requested
        )

    def check_owned(self) -> None:
        """Raise TakenOver if the run is another process's now. To be called before anything is written to its folder: between
        two signs of life nothing else tells."""
        if not self.owned():
            raise TakenOver

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.requested is not None:
            raise KeyboardInterrupt
        if self.requested is None:
            self.requested = signal.Signals(number).name
            if self.at_once:
                self._raise()
            then = "saving" if self.owned() else "stopping"
            # print() is not allowed to run inside itself, and a handler may run inside any print. Nor may it fail: who read it may be
            # gone by the same Ctrl-C, as `| tee` is.
            with suppress(OSError):
                os.write(
                    2,
                    f"cuttlefish: {self.requested}: finishing this step, then {then} (Ctrl-C again stops at once)\n".encode(),
                )


def end_with_parent(parent: int | None = None) -> None:
    """Have the kernel send this process SIGTERM when the thread that started it ends. Without effect where there is no such call.

    parent: for a process that is still to become the program it was started for: who starts it. It then ends by SIGTERM, at once if
    the parent has died already; the parent's handlers, which it still has, would take the signal for a request and lose it.
    """
    if parent is not None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if parent not in (None, os.getppid()):
        os.kill(os.getpid(), signal.SIGTERM)
