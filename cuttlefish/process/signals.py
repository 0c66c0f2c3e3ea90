"""Handle requests to stop: Ctrl-C, SIGTERM, or a scheduler's warning signal (SIGUSR1, SIGUSR2)."""

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
    """What would be lost if the run ended now; it decides the effect of a request to stop.

    state       when                                           the signal             between two steps
    UNTRAINED   reading data, building, timing stacks          ends the run at once   -
    SAVED       between epochs, all of which are on disk       ends the run at once   -
    UNSAVED     training; several processes, at any time       is noted               save, then end the run
    LOST        another process has taken the run over         is noted               end it, save nothing

    A second Ctrl-C raises KeyboardInterrupt in any state: the files on disk are always consistent. Several
    processes agree on the highest request (`StopSignals.agreed`), because they must stop together.
    """

    UNTRAINED = "before a step was trained"
    SAVED = "before another step was trained, state saved"
    UNSAVED = "saving"
    LOST = "stopping"

    @property
    def ends_at_once(self) -> bool:
        return self in (State.UNTRAINED, State.SAVED)


class Request(IntEnum):
    """Request of a process between two steps; all processes follow the highest one."""

    NOTHING = 0
    SAVE = 1
    SAVE_AND_STOP = 2
    STOP = 3


class StopSignals:
    """Context manager that turns the first of these signals into a request, by the table in `State`.

    It does nothing outside the main thread, where handlers cannot be set.

    Attributes:
        requested: Name of the first signal; None before one arrives.
        owned: Returns whether this process still owns the run (`RunLock.owned`).
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
        """Change the state. Raises Interrupted if a stop was requested and the new state ends at once."""
        self._state = state
        self._end_at_once()

    @contextmanager
    def within(self, state: State) -> Iterator[None]:
        """Enter `state` for the block, and UNSAVED after it."""
        try:
            self.enter(state)
            yield
        finally:
            self._state = State.UNSAVED

    def agreed(self, all_reduce_max: Callable[[int], int], request: Request = Request.NOTHING) -> Request:
        """Return the highest request of all processes. A collective call between two steps.

        Args:
            request: This process's request, overridden by a request to stop.

        Raises:
            TakenOver: A process has lost the run.
        """
        if self.requested:
            request = Request.STOP if self.state is State.LOST else Request.SAVE_AND_STOP
        highest = Request(all_reduce_max(request))
        if highest is Request.STOP:
            raise TakenOver
        return highest

    def check_owned(self) -> None:
        """Raise TakenOver if another process has taken over the run.

        Call it before writing to the run folder: between two heartbeats nothing else detects a takeover.
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
            # Not print(), which is not reentrant: the handler may run inside a print. The reader may have
            # ended by the same Ctrl-C, as with `| tee`.
            with suppress(OSError):
                os.write(2, f"cuttlefish: {self.requested}: {told}\n".encode())


def end_with_parent(parent: int | None = None) -> None:
    """Have the kernel send this process SIGTERM when the thread that started it ends, if supported.

    Args:
        parent: Process id of the parent, for calls between fork and exec. SIGTERM then gets its default
            action, because the inherited handlers would swallow it, and the process ends at once if the
            parent has already died.
    """
    if parent is not None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if parent not in (None, os.getppid()):
        os.kill(os.getpid(), signal.SIGTERM)
