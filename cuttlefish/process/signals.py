"""Requests to stop: a terminal's Ctrl-C, a scheduler's SIGTERM or its warning signal (SIGUSR1, SIGUSR2)."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum, IntEnum
from types import FrameType

from cuttlefish.errors import Interrupted, TakenOver

PR_SET_PDEATHSIG = 1
HANDLED = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)


class State(Enum):
    """What would be lost if the run ended now, which decides what a request to stop does.

    state       when                                           the signal             between two steps
    UNTRAINED   reading data, building, timing stacks          ends the run at once   -
    SAVED       between epochs, all of which are on the disk   ends the run at once   -
    UNSAVED     training; several processes, at any time       is noted               save, then end the run
    LOST        another process has taken the run over         is noted               end it, save nothing

    A second Ctrl-C raises KeyboardInterrupt in any state: what is on the disk is whole at any moment. Several
    processes agree on the strongest request of all (`StopSignals.agreed`), because none may leave by itself.
    """

    UNTRAINED = "before a step was trained"
    SAVED = "before another step was trained, state saved"
    UNSAVED = "saving"
    LOST = "stopping"

    @property
    def ends_at_once(self) -> bool:
        return self in (State.UNTRAINED, State.SAVED)


class Request(IntEnum):
    """What a process wants between two steps; the highest of all is done by all."""

    NOTHING = 0
    SAVE = 1
    SAVE_AND_STOP = 2
    STOP = 3


class StopSignals:
    """A context manager that turns the first of these signals into a request, as the table of `State` says.

    Handlers can be set in the main thread only; elsewhere it does nothing.

    Attributes:
        requested: The name of the first signal, None as long as there is none.
        owned: Whether the run is still this process's (`RunLock.owned`).
    """

    def __init__(self) -> None:
        self.owned: Callable[[], bool] = lambda: True
        self.requested: str | None = None
        self._state = State.UNSAVED
        self._before: dict[int, object] = {}

    @property
    def state(self) -> State:
        return self._state if self.owned() else State.LOST

    def enter(self, state: State) -> None:
        """Change the state. Raises Interrupted if a stop requested before need not be waited for any more."""
        self._state = state
        self._end_at_once()

    @contextmanager
    def within(self, state: State) -> Iterator[None]:
        """Be in `state`, afterwards in UNSAVED."""
        try:
            self.enter(state)
            yield
        finally:
            self._state = State.UNSAVED

    def agreed(self, all_reduce_max: Callable[[int], int], request: Request = Request.NOTHING) -> Request:
        """Return what all processes do now; to be called by all of them between two steps.

        Args:
            request: What this one wants, unless it was asked to stop.

        Raises:
            TakenOver: One of them has lost the run.
        """
        if self.requested:
            request = Request.STOP if self.state is State.LOST else Request.SAVE_AND_STOP
        highest = Request(all_reduce_max(request))
        if highest is Request.STOP:
            raise TakenOver
        return highest

    def check_owned(self) -> None:
        """Raise TakenOver if the run is another process's now.

        To be called before anything is written to its folder: between two signs of life nothing else tells.
        """
        if self.state is State.LOST:
            raise TakenOver

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in HANDLED}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]
        self._before = {}

    def _end_at_once(self) -> None:
        if self.requested and self._state.ends_at_once:
            sentence = f"stopped by {self.requested} {self._state.value}; the same command goes on"
            raise Interrupted(sentence, self.requested)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.requested is not None:
            raise KeyboardInterrupt
        if self.requested is None:
            self.requested = signal.Signals(number).name
            self._end_at_once()
            told = f"finishing this step, then {self.state.value} (Ctrl-C again stops at once)"
            # print() is not allowed to run inside itself, and a handler may run inside any print. Nor may it
            # fail: who read it may be gone by the same Ctrl-C, as `| tee` is.
            with suppress(OSError):
                os.write(2, f"cuttlefish: {self.requested}: {told}\n".encode())


def end_with_parent(parent: int | None = None) -> None:
    """Have the kernel send this process SIGTERM when the thread that started it ends, where it can.

    Args:
        parent: Who starts it, for a process that is still to become the program it was started for. It then
            ends by SIGTERM, at once if the parent has died already; the parent's handlers, which it still
            has, would take the signal for a request and lose it.
    """
    if parent is not None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if parent not in (None, os.getppid()):
        os.kill(os.getpid(), signal.SIGTERM)
