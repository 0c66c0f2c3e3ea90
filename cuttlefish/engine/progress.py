"""Where a run stands."""

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Progress:
    """Everything in it goes into the checkpoint.

    phase: index of the phase; epoch: the schedule's next (or present) epoch; trained: whole epochs over all phases;
    history: one summary a phase; last: the last epoch's row.
    Within an epoch, step counts its steps so far (None between epochs), sums holds their (loss, correct, samples) over all
    processes, and parts the clock's parts at the epoch's begin.
    """

    phase: int = 0
    epoch: int = 0
    trained: int = 0
    entered: bool = False
    best: float = -math.inf
    last: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    step: int | None = None
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    parts: dict[str, float] = field(default_factory=dict)

    def begin_phase(self, name: str, epoch: int) -> None:
        self.epoch, self.entered = epoch, True
        self.best = (
            -math.inf
        )  # the run's best epoch is one of its last phase: earlier ones train another network
        self.history.append({"name": name, "before": self.trained})

    def end_phase(self) -> None:
        self.history[-1]["epochs"] = self.trained - self.history[-1]["before"]
        self.entered = False
        self.phase += 1

    def begin_epoch(self, parts: dict[str, float]) -> None:
        self.step, self.sums, self.parts = 0, [0.0, 0.0, 0.0], dict(parts)

    def end_epoch(self) -> None:
        self.trained += 1
        self.epoch += 1
        self.step = None
