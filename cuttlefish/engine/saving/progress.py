"""The progress of a run and the random state of its processes, as stored in checkpoints."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from cuttlefish.engine.processes.world import World


@dataclass
class Progress:
    """Progress of a run. Every field is stored in the checkpoint.

    Attributes:
        phase: Index of the phase.
        epoch: The schedule's current epoch, or the next one between epochs.
        trained: Number of completed epochs over all phases.
        entered: Whether the phase has started.
        best: Best value of each metric in the phase.
        last: The last epoch's row.
        history: One summary per phase.
        step: Steps done in the current epoch; None between epochs.
        sums: Their (loss, correct, samples) over all processes.
        parts: The timer's sections at the start of the epoch.
    """

    phase: int = 0
    epoch: int = 0
    trained: int = 0
    entered: bool = False
    best: dict[str, float] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    step: int | None = None
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    parts: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.best, float):  # a checkpoint from before there were other metrics
            self.best = {"accuracy": self.best} if isfinite(self.best) else {}

    def begin_phase(self, name: str, epoch: int) -> None:
        self.epoch, self.entered = epoch, True
        self.best = {}  # only the last phase's best epoch counts: earlier phases train another network
        self.history.append({"name": name, "before": self.trained})

    def end_phase(self) -> None:
        self.history[-1]["epochs"] = self.trained - self.history[-1]["before"]
        self.entered = False
        self.phase += 1

    def begin_epoch(self, sections: dict[str, float]) -> None:
        self.step, self.sums, self.parts = 0, [0.0, 0.0, 0.0], dict(sections)

    def count_best(self, metrics: Mapping[str, float], lower_is_better: Collection[str]) -> None:
        for name, value in metrics.items():
            better = min if name in lower_is_better else max
            self.best[name] = better(self.best.get(name, value), value)

    def end_epoch(self) -> None:
        self.trained += 1
        self.epoch += 1
        self.step = None


def times_measured(method: Mapping[str, Any]) -> int:
    """Return how many times the ranks in a method's state were measured; EB's history is none of ranks."""
    history = method.get("history")
    return max(map(len, history.values()), default=0) if isinstance(history, Mapping) else 0


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Return this process's random state as tensors for the checkpoint."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(
    first: dict[str, Tensor], others: list[dict[str, Tensor]], world: World, device: torch.device
) -> None:
    """Restore this process's random state; a process that the saved run did not have keeps its own."""
    states = [first, *others]
    if world.process >= len(states):
        return
    torch.set_rng_state(states[world.process]["cpu"])
    if device.type == "cuda" and "cuda" in states[world.process]:
        torch.cuda.set_rng_state(states[world.process]["cuda"], device)
