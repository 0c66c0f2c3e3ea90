"""The knobs of Cuttlefish as a method of the trainer."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from cuttlefish.limits import Within
from cuttlefish.lowrank.settings import Settings as CoreSettings
from cuttlefish.methods.interval import Interval


@dataclass(frozen=True)
class Settings(CoreSettings):
    """Those of the core, and some of the run.

    interval: so many optimizer steps take an epoch's place in all settings. Ranks are then measured, and the
    switch may come, within epochs, as fine-tuning needs, which has few.
    restart_lr: the peak of a linear schedule of its own after the switch; that before it ends at the switch.
    restart_scale: the peak of another schedule after the switch, as a multiple of that before.
    forget_milestones: milestones passed by the switch count no more, as in the reference's code for ImageNet.
    """

    interval: Interval = None
    restart_lr: Annotated[float | None, Within(0, ends="()")] = None
    restart_scale: Annotated[float, Within(0, 1000, "(]")] = 1.0
    forget_milestones: bool = False

    def contradictions(self) -> Iterator[str]:
        yield from super().contradictions()
        if self.restart_lr is not None and (self.switch_epoch is None or not self.rewarm):
            yield "restart_lr, a schedule of its own after the switch, needs switch_epoch and rewarm=true"

    def outside(self, epochs: int) -> Iterator[str]:
        if self.interval is None:  # else they are intervals, whose number the data's size decides
            yield from super().outside(epochs)
