"""The recipe of a run's training: epochs, batch size, optimizer and learning-rate schedule."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from cuttlefish.limits import Checked, Count, Each, Name, Within, shown

Epochs = Annotated[int, Within(1, 100_000)]
Fraction = Annotated[float, Within(0, 1, "[)")]
LearningRate = Annotated[float, Within(0, ends="()")]


@dataclass(frozen=True)
class OptimizerConfig(Checked):
    name: Literal["sgd", "adamw"] = "sgd"
    momentum: Fraction = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Within(0, 1000)] = 1e-4
    betas: Annotated[list[float], Count(2), Each(Within(0, 1, "[)"))] = field(
        default_factory=lambda: [0.9, 0.999]
    )
    eps: Annotated[float, Within(0, 1, "(]")] = 1e-8

    def contradictions(self) -> Iterator[str]:
        if self.nesterov and not (self.name == "sgd" and self.momentum > 0):
            yield "nesterov needs name=sgd and a momentum above 0"


@dataclass(frozen=True)
class ScheduleConfig(Checked):
    name: Literal["milestones", "cosine", "linear"] = "milestones"
    """linear is set at every step, the others at every epoch."""
    base_lr: LearningRate = 0.1
    """Learning rate of epoch 0, and of the switch epoch if the warm-up is repeated."""
    peak_lr: LearningRate = 0.1
    warmup_epochs: Annotated[int, Within(0, 100_000)] = 0
    warmup_fraction: Annotated[float, Within(0, 1, "[)")] = 0.0
    """The same as a fraction of all epochs, of the linear schedule."""
    warmup_steps: Annotated[int, Within(0, 10**9)] = 0
    """The same in optimizer steps, of the linear schedule."""
    milestones: Annotated[list[float], Each(Within(0, 1, "(]"))] = field(default_factory=lambda: [0.5, 0.75])
    """Milestones as fractions of all epochs (epoch = floor(fraction * epochs))."""
    gamma: Annotated[float, Within(0, 1, "(]")] = 0.1
    min_lr: Annotated[float, Within(0)] = 0.0

    def contradictions(self) -> Iterator[str]:
        if any(low >= high for low, high in zip(self.milestones, self.milestones[1:], strict=False)):
            yield f"milestones must be ascending fractions of the run in (0, 1], not {shown(self.milestones)}"
        given = [key for key in ("warmup_fraction", "warmup_steps", "warmup_epochs") if getattr(self, key)]
        if self.name != "linear" and given and given[0] != "warmup_epochs":
            yield f"{given[0]} is of name=linear; {self.name} takes warmup_epochs"
        if len(given) > 1:
            yield f"{given[0]} and {given[1]} both set the warm-up; give one of them"
        if self.min_lr > self.peak_lr:
            yield f"min_lr must be in [0, peak_lr], not {self.min_lr}"


@dataclass(frozen=True)
class RecipeConfig(Checked):
    name: Annotated[str, Name()] = "cifar"
    epochs: Epochs = 300
    batch_size: Annotated[int, Within(1, 10**6)] = 1024
    """Global batch size, over all devices."""
    eval_batch_size: Annotated[int, Within(1, 10**6)] = 1000
    label_smoothing: Fraction = 0.0
    clip_norm: Annotated[float | None, Within(0, ends="()")] = None
    """Scale the loss's gradients down to this Euclidean norm over all parameters where they are above it."""
    ema: Annotated[float | None, Within(0, 1, "()")] = None
    """Decay of an exponential moving average of the weights, which is evaluated and kept in their place."""
    accumulate: Annotated[int, Within(1, 10**4)] = 1
    """Forward and backward passes of a step, each on a part of the batch, to save memory."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)

    def contradictions(self) -> Iterator[str]:
        warmup = self.schedule.warmup_epochs
        if warmup > self.epochs:
            yield f"schedule.warmup_epochs={warmup} does not fit into {self.epochs} epochs; choose fewer"
        if self.accumulate > self.batch_size:
            yield f"accumulate={self.accumulate} parts cannot be made of batch_size={self.batch_size}"
