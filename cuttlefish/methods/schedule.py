"""Learning rates as pure functions of the epoch (audit 4.3 and 6.1)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import cos, floor, pi
from typing import Any

from cuttlefish.config.schema import ScheduleConfig


@dataclass(frozen=True)
class Milestones:
    """Stepwise warm-up from base to peak, then a factor gamma at each milestone epoch.

    Attributes:
        restart: The epoch at which the warm-up is repeated (the switch).
        overshoot: Behaviour of a repeated warm-up after a milestone. False: scale it by the milestones
            already passed. True (as the reference code): train the restart epoch at the unscaled base rate,
            then go to the scaled peak.
    """

    base_lr: float
    peak_lr: float
    warmup_epochs: int
    milestones: tuple[int, ...]
    gamma: float
    restart: int | None = None
    overshoot: bool = False

    def lr(self, epoch: int) -> float:
        damping = self.gamma ** sum(epoch >= milestone for milestone in self.milestones)
        start = self.restart if self.restart is not None and epoch >= self.restart else 0
        since = epoch - start
        if self.overshoot and start and since == 0:
            return self.base_lr
        if since >= self.warmup_epochs or (self.overshoot and damping < 1):
            return self.peak_lr * damping
        return (self.base_lr + (self.peak_lr - self.base_lr) * since / self.warmup_epochs) * damping

    def restarted(self, epoch: int, overshoot: bool = False) -> Milestones:
        return replace(self, restart=epoch, overshoot=overshoot)


@dataclass(frozen=True)
class Cosine:
    """Stepwise warm-up from base to peak, then half a cosine to min_lr, reached at epoch `epochs`."""

    base_lr: float
    peak_lr: float
    warmup_epochs: int
    epochs: int
    min_lr: float = 0.0
    restart: int | None = None

    def lr(self, epoch: int) -> float:
        annealed = (
            self.min_lr + (self.peak_lr - self.min_lr) * (1 + cos(pi * min(epoch / self.epochs, 1.0))) / 2
        )
        start = self.restart if self.restart is not None and epoch >= self.restart else 0
        since = epoch - start
        if since >= self.warmup_epochs:
            return annealed
        return min(annealed, self.base_lr + (self.peak_lr - self.base_lr) * since / self.warmup_epochs)

    def restarted(self, epoch: int, overshoot: bool = False) -> Cosine:
        return replace(self, restart=epoch)


@dataclass(frozen=True)
class Exponential:
    """Exponential decay: initial_lr * decay**(epoch - start)."""

    initial_lr: float
    decay: float
    start: int = 0

    def lr(self, epoch: int) -> float:
        return self.initial_lr * self.decay ** (epoch - self.start)

    def restarted(self, epoch: int, overshoot: bool = False) -> Exponential:
        return replace(self, start=epoch)


Schedule = Milestones | Cosine | Exponential
KINDS: dict[str, type] = {kind.__name__: kind for kind in (Milestones, Cosine, Exponential)}


def build_schedule(config: ScheduleConfig, epochs: int) -> Schedule:
    if config.name == "cosine":
        return Cosine(config.base_lr, config.peak_lr, config.warmup_epochs, epochs, config.min_lr)
    milestones = tuple(floor(fraction * epochs) for fraction in config.milestones)
    return Milestones(config.base_lr, config.peak_lr, config.warmup_epochs, milestones, config.gamma)


def schedule_to_dict(schedule: Schedule) -> dict[str, Any]:
    return {"kind": type(schedule).__name__, **asdict(schedule)}


def schedule_from_dict(state: dict[str, Any]) -> Schedule:
    state = dict(state)
    kind = KINDS[state.pop("kind")]
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in state.items()})
