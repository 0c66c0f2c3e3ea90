"""Learning rates as pure functions of the epoch (audit 4.3, 6.1 and 6.4)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import cos, floor, pi
from typing import Any, ClassVar

from cuttlefish.config.recipe import ScheduleConfig


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
    by_step: ClassVar[bool] = False

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

    def scaled(self, scale: float) -> Milestones:
        """Return the schedule of a restart to another peak."""
        return replace(self, peak_lr=scale * self.peak_lr)

    def forgetting(self, epoch: int) -> Milestones:
        """Return the schedule without the milestones before `epoch`, as the reference on ImageNet."""
        return replace(self, milestones=tuple(place for place in self.milestones if place >= epoch))


@dataclass(frozen=True)
class Cosine:
    """Stepwise warm-up from base to peak, then half a cosine to min_lr, reached at epoch `epochs`.

    Attributes:
        restart: The epoch at which the warm-up is repeated (the switch).
        overshoot: True (as the reference code for DeiT): train the restart epoch at the base rate, then
            follow the cosine at once.
    """

    base_lr: float
    peak_lr: float
    warmup_epochs: int
    epochs: int
    min_lr: float = 0.0
    restart: int | None = None
    overshoot: bool = False
    by_step: ClassVar[bool] = False

    def lr(self, epoch: int) -> float:
        annealed = (
            self.min_lr + (self.peak_lr - self.min_lr) * (1 + cos(pi * min(epoch / self.epochs, 1.0))) / 2
        )
        start = self.restart if self.restart is not None and epoch >= self.restart else 0
        since = epoch - start
        if self.overshoot and start:
            return annealed if since else self.base_lr
        if since >= self.warmup_epochs:
            return annealed
        return min(annealed, self.base_lr + (self.peak_lr - self.base_lr) * since / self.warmup_epochs)

    def restarted(self, epoch: int, overshoot: bool = False) -> Cosine:
        return replace(self, restart=epoch, overshoot=overshoot)

    def scaled(self, scale: float) -> Cosine:
        """Return the schedule of a restart to another peak."""
        return replace(self, peak_lr=scale * self.peak_lr)


@dataclass(frozen=True)
class Linear:
    """Linear warm-up from base to peak, then linear decay to min_lr at epoch `epochs`; set at every step.

    Attributes:
        warmup_epochs: May be a fraction.
        restart: The epoch at which it begins again (the switch).
        restart_lr: The peak from there on. None: after the warm-up the line goes on as before.
        part_end: The epoch at which the part before the restart ends at min_lr; None: that of the run.
        warmup_steps: A warm-up in steps, until `timed` makes epochs of it.
    """

    base_lr: float
    peak_lr: float
    warmup_epochs: float
    epochs: int
    min_lr: float = 0.0
    restart: float | None = None
    restart_lr: float | None = None
    part_end: int | None = None
    warmup_steps: int = 0
    by_step: ClassVar[bool] = True

    def lr(self, epoch: float) -> float:
        """Return the learning rate at a fractional epoch."""
        if self.restart is None or epoch < self.restart:
            return self._line(epoch, 0, self.part_end or self.epochs, self.peak_lr)
        if self.restart_lr is not None:
            return self._line(epoch, self.restart, self.epochs, self.restart_lr)
        line = self._line(epoch, 0, self.epochs, self.peak_lr)
        return min(line, self._risen(epoch - self.restart, self.peak_lr))

    def restarted(self, epoch: float, overshoot: bool = False) -> Linear:
        return replace(self, restart=epoch)

    def own_part(self, until: int) -> Linear:
        """Return the schedule whose part before the restart ends at epoch `until`."""
        return replace(self, part_end=until)

    def _line(self, epoch: float, begin: float, end: float, peak: float) -> float:
        since, length = epoch - begin - self.warmup_epochs, end - begin - self.warmup_epochs
        if since < 0:
            return self._risen(epoch - begin, peak)
        return (
            self.min_lr + (peak - self.min_lr) * max(0.0, 1 - since / length) if length > 0 else self.min_lr
        )

    def _risen(self, since: float, peak: float) -> float:
        share = min(since / self.warmup_epochs, 1.0) if self.warmup_epochs else 1.0
        return self.base_lr + (peak - self.base_lr) * share


@dataclass(frozen=True)
class Exponential:
    """Exponential decay: initial_lr * decay**(epoch - start)."""

    initial_lr: float
    decay: float
    start: int = 0
    by_step: ClassVar[bool] = False

    def lr(self, epoch: int) -> float:
        return self.initial_lr * self.decay ** (epoch - self.start)

    def restarted(self, epoch: int, overshoot: bool = False) -> Exponential:
        return replace(self, start=epoch)


Schedule = Milestones | Cosine | Linear | Exponential
KINDS: dict[str, type] = {kind.__name__: kind for kind in (Milestones, Cosine, Linear, Exponential)}


def build_schedule(config: ScheduleConfig, epochs: int) -> Schedule:
    if config.name == "cosine":
        return Cosine(config.base_lr, config.peak_lr, config.warmup_epochs, epochs, config.min_lr)
    if config.name == "linear":
        warmup = config.warmup_epochs or config.warmup_fraction * epochs
        linear = Linear(config.base_lr, config.peak_lr, warmup, epochs, config.min_lr)
        return replace(linear, warmup_steps=config.warmup_steps)
    milestones = tuple(floor(fraction * epochs) for fraction in config.milestones)
    return Milestones(config.base_lr, config.peak_lr, config.warmup_epochs, milestones, config.gamma)


def timed(schedule: Schedule, steps: int) -> Schedule:
    """Return the schedule of epochs of so many steps, in which a warm-up may be given."""
    if not isinstance(schedule, Linear) or not schedule.warmup_steps:
        return schedule
    return replace(schedule, warmup_epochs=schedule.warmup_steps / steps, warmup_steps=0)


def schedule_to_dict(schedule: Schedule) -> dict[str, Any]:
    return {"kind": type(schedule).__name__, **asdict(schedule)}


def schedule_from_dict(state: dict[str, Any]) -> Schedule:
    state = dict(state)
    kind = KINDS[state.pop("kind")]
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in state.items()})
