"""One clock for every method: device time by part and phase, read without a host sync inside a step."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from time import perf_counter
from typing import Any

import torch

UNCHARGED = {"data", "evaluate", "checkpoint", "logging", "compile", "tracking"}
"""Parts that are shown but are not `compute_seconds`; tracking is what a run records beyond what its method needs."""


class Clock:
    """Books the time between marks to the part that was running.

    A mark is a CUDA event on a GPU and a reading of the host's monotonic clock elsewhere; `collect` turns marks into seconds
    and is the only call that waits for the device.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.phase = ""
        self.seconds: dict[str, dict[str, float]] = {}
        self._marks: list[tuple[str | None, Any]] = []
        self._running: list[str] = []
        self._began = perf_counter()
        self._earlier = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Book what is inside to `name`, and not to the part around it."""
        self._running.append(name)
        self._mark()
        try:
            yield
        finally:
            self._running.pop()
            self._mark()

    def collect(self) -> None:
        """Add up all marks so far under the present phase."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        booked = self.seconds.setdefault(self.phase, {})
        for (name, start), (_, stop) in pairwise(self._marks):
            if name is not None:
                booked[name] = booked.get(name, 0.0) + self._elapsed(start, stop)
        self._marks = self._marks[-1:]

    @property
    def wall_seconds(self) -> float:
        """Everything since the start, over all pieces of a resumed run."""
        return self._earlier + perf_counter() - self._began

    @property
    def compute_seconds(self) -> float:
        """Forward, backward, step and every method-specific operation, over all phases."""
        return sum(
            value for parts in self.seconds.values() for name, value in parts.items() if name not in UNCHARGED
        )

    def by_part(self) -> dict[str, float]:
        total: dict[str, float] = {}
        for parts in self.seconds.values():
            for name, value in parts.items():
                total[name] = total.get(name, 0.0) + value
        return total

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "wall_seconds": self.wall_seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seconds = {phase: dict(parts) for phase, parts in state["seconds"].items()}
        self._earlier = state["wall_seconds"]

    def at_least(self, wall_seconds: float) -> None:
        """Charge to `wall_seconds` what earlier processes took until they ended, work after their last checkpoint included."""
        self._earlier = max(self._earlier, wall_seconds)

    def _mark(self) -> None:
        if self.device.type == "cuda":
            now: Any = torch.cuda.Event(enable_timing=True)
            now.record()
        else:
            now = perf_counter()
        self._marks.append((self._running[-1] if self._running else None, now))

    def _elapsed(self, start: Any, stop: Any) -> float:
        return start.elapsed_time(stop) / 1e3 if self.device.type == "cuda" else stop - start
