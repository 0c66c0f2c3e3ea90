"""What a loop keeps beside the model follows the switch: optimizer, decay, average, statistics."""

from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn
from torch.optim import Optimizer

from cuttlefish.auto.follow.average import check_average, split_average
from cuttlefish.auto.follow.optimizer import Momentum, check_can_follow, follow_switch
from cuttlefish.auto.follow.recalibrate import inputs_like, recalibrate
from cuttlefish.auto.switch import Replaced
from cuttlefish.auto.watch import Watch
from cuttlefish.lowrank.decay import FrobeniusDecay, decay_groups
from cuttlefish.lowrank.settings import Settings
from cuttlefish.lowrank.trace import Batch, Forward, call_model


class Followers:
    """The calls of `Cuttlefish` that keep a loop's other objects in step with the model."""

    layers: list[str]
    _form: type | frozenset[str]

    def __init__(self, model: nn.Module, settings: Settings, forward: Forward | None):
        self.model, self.settings, self.forward = model, settings, forward
        self.decay: FrobeniusDecay | None = None
        self.switch_epoch: int | None = None
        self._watch: Watch | None = None
        self._replaced: list[Replaced] = []
        self._averages: list[nn.Module] = []
        self._waiting: WeakKeyDictionary[Optimizer, Momentum] = WeakKeyDictionary()

    @property
    def switched(self) -> bool:
        return self.switch_epoch is not None

    def before_step(self) -> None:
        """Apply Frobenius decay: after backward (reduced, unscaled), before each optimizer step.

        Under SGD it is a gradient, under any other optimizer it is decoupled (see `FrobeniusDecay`).
        """
        if self._watch is not None:
            self._watch.before_step()
        elif self.decay is not None:
            self.decay.add_gradients()

    def param_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Return optimizer groups: L2 for matrices and kernels, but not for factors under Frobenius decay."""
        exempt = self.decay.parameters() if self.decay is not None else set()
        return decay_groups(self.model, weight_decay, exempt)

    def optimizer(self, optimizer: Optimizer, momentum: Momentum = "fresh") -> Optimizer:
        """Let an optimizer follow the switch in place, now or when it comes; return it.

        Its class, groups, learning rates and the state of all other parameters stay, so that schedulers and
        wrappers around it stay valid. One that holds the factors already (after a resume) is left as it is.

        Args:
            optimizer: That of the dense weights.
            momentum: Of the factors: `fresh`, or `projected` from the dense weights' (states like SGD's and
                Adam's; others, as Adafactor's, start fresh, which the log says).

        Raises:
            CuttlefishError: It holds no parameter of the model, or has no group without weight decay for
                factors under Frobenius decay. Told now, if the switch is still to come.
        """
        if not self.switched:
            check_can_follow(
                optimizer, self.model, self.layers, bool(self.settings.frobenius_decay), momentum
            )
            self._waiting[optimizer] = momentum
        else:
            factors = set() if self.decay is None else self.decay.parameters()
            follow_switch(optimizer, self.model, self._replaced, factors, momentum)
        return optimizer

    def follow(self, average: nn.Module) -> None:
        """Let an exponential moving average of the weights follow the switch, now or when it comes.

        Its dense layers become low-rank at the model's ranks, in the model's basis, so that averaging goes on
        with factors that belong together. The product stays the best approximation of what was averaged.

        Args:
            average: torch's AveragedModel, timm's ModelEmaV3 or a copy of the model.

        Raises:
            CuttlefishError: It is no average of this model.
        """
        if self.switched:
            split_average(self.model, average)
        else:
            check_average(self.model, average)
        self._averages.append(average)

    def recalibrate(self, loader: Iterable[Any], batches: int = 32) -> int:
        """Measure batch-norm statistics anew, which the switch leaves wrong, and return the batches seen.

        Args:
            loader: Yields what `forward` takes, else the model's inputs or (inputs, labels).
            batches: How many to take at most.
        """
        return recalibrate(self.model, loader, batches, self.forward or self._call)

    def _follow_switch(self) -> None:
        for average in self._averages:
            split_average(self.model, average)
        for optimizer, momentum in list(self._waiting.items()):
            self.optimizer(optimizer, momentum)
        if self._watch is not None:
            self._watch.switched(self._replaced, self.decay, self._averages)

    def _call(self, model: nn.Module, batch: Batch) -> Any:
        return call_model(model, inputs_like(self._form, batch))
