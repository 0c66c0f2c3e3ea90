"""Timing: seconds by section and phase, when a checkpoint is due, a profiler trace of the first steps."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule, supported_activities

from cuttlefish.config.schema import TrainerConfig

UNCHARGED = {"data", "evaluate", "checkpoint", "logging", "compile", "tracking"}
"""Sections not counted in `compute_seconds`; `tracking` is rank recording that the method does not need."""
SKIPPED_STEPS, TRACED_STEPS = 2, 3


class Timer:
    """Charge the time between two marks to the section that was running, for every method alike.

    A mark is a CUDA event on a GPU and a reading of the host's monotonic clock elsewhere. `collect` turns
    marks into seconds and is the only call that waits for the device, so there is no host sync inside a step.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.phase = ""
        self.seconds: dict[str, dict[str, float]] = {}
        self._marks: list[tuple[str | None, Any]] = []
        self._running: list[str] = []
        self._began = time.perf_counter()
        self._earlier = 0.0

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Charge the enclosed time to `name` and not to the surrounding section."""
        self._running.append(name)
        self._mark()
        try:
            yield
        finally:
            self._running.pop()
            self._mark()

    def collect(self) -> None:
        """Sum all marks so far under the current phase."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        booked = self.seconds.setdefault(self.phase, {})
        for (name, start), (_, stop) in pairwise(self._marks):
            if name is not None:
                booked[name] = booked.get(name, 0.0) + self._elapsed(start, stop)
        self._marks = self._marks[-1:]

    @property
    def wall_seconds(self) -> float:
        """Return the time since the start, over all pieces of a resumed run."""
        return self._earlier + time.perf_counter() - self._began

    @property
    def compute_seconds(self) -> float:
        """Return the time of forward, backward, step and all operations of the method, over all phases."""
        return sum(seconds for name, seconds in self.by_section().items() if name not in UNCHARGED)

    def by_section(self) -> dict[str, float]:
        """Return the seconds of each section, summed over the phases."""
        total: dict[str, float] = {}
        for sections in self.seconds.values():
            for name, value in sections.items():
                total[name] = total.get(name, 0.0) + value
        return total

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "wall_seconds": self.wall_seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seconds = {phase: dict(sections) for phase, sections in state["seconds"].items()}
        self._earlier = state["wall_seconds"]

    def at_least(self, wall_seconds: float) -> None:
        """Raise `wall_seconds` to the total of earlier processes, including their lost work."""
        self._earlier = max(self._earlier, wall_seconds)

    def _mark(self) -> None:
        if self.device.type == "cuda":
            now: Any = torch.cuda.Event(enable_timing=True)
            now.record()
        else:
            now = time.perf_counter()
        self._marks.append((self._running[-1] if self._running else None, now))

    def _elapsed(self, start: Any, stop: Any) -> float:
        return start.elapsed_time(stop) / 1e3 if self.device.type == "cuda" else stop - start


class CheckpointTimer:
    """Decide when to write a checkpoint.

    One is due after every `checkpoint_epochs` epochs, but not within `checkpoint_minutes` of the last; within
    a longer epoch one is due every `checkpoint_minutes`.

    Args:
        clock: Returns seconds; monotonic, because the time of day may be set back.
    """

    def __init__(self, config: TrainerConfig, clock: Callable[[], float] = time.monotonic):
        self.epochs, self.seconds, self.clock = (
            config.checkpoint_epochs,
            60 * config.checkpoint_minutes,
            clock,
        )
        self._whole = self._any = clock()

    def begin_epoch(self) -> None:
        self._any = self.clock()

    def due_after_epoch(self, trained: int) -> bool:
        return trained % self.epochs == 0 and self.clock() - self._whole >= self.seconds

    def due_within_epoch(self) -> bool:
        return self.seconds > 0 and self.clock() - self._any >= self.seconds

    def saved(self, whole: bool) -> None:
        """Record that a checkpoint was just written, after an epoch (`whole`) or within one."""
        self._any = self.clock()
        if whole:
            self._whole = self._any


@contextmanager
def first_steps(wanted: bool, folder: Path) -> Iterator[Callable[[], None]]:
    """Trace the first steps with torch's profiler (debug=profile), once per run folder.

    Yields:
        A function to call after each step; it writes `folder`/trace.json and a table of operators.
    """
    if not wanted or (folder / "trace.json").exists():
        yield lambda: None
        return

    def write(traced: profile) -> None:
        traced.export_chrome_trace(str(folder / "trace.json"))
        device = "cuda" if ProfilerActivity.CUDA in supported_activities() else "cpu"
        table = traced.key_averages().table(sort_by=f"self_{device}_time_total", row_limit=30)
        (folder / "operators.txt").write_text(table)

    plan = schedule(wait=0, warmup=SKIPPED_STEPS, active=TRACED_STEPS, repeat=1)
    with profile(activities=list(supported_activities()), schedule=plan, on_trace_ready=write) as traced:
        yield traced.step
