"""Cuttlefish under Lightning's Trainer.

trainer = Trainer(callbacks=[CuttlefishCallback(images, module="net")], max_epochs=90)
trainer.fit(model, loader)
"""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from cuttlefish.auto import Cuttlefish
from cuttlefish.auto.follow.average import inner_model
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.trace import Batch


class CuttlefishCallback(Callback):
    """Makes a part of a LightningModule low-rank while it is fitted, on one device. Each part has its own.

    Optimizers follow, and the averages that Lightning's callbacks keep (EMAWeightAveraging).

    Checkpoints hold the state. Give `fit` and this callback the same path to go on from one.

    Args:
        batch: One training batch of inputs of that part, on its device.
        module: Name of the attribute of the LightningModule that holds the network.
        resume: The path that is given to `fit` as `ckpt_path`.
        **options: Arguments of `Cuttlefish`. Under `interval` its steps are optimizer steps.

    Attributes:
        core: The `Cuttlefish` object, from the beginning of fitting on.
    """

    def __init__(self, batch: Batch, module: str = "model", *, resume: str | None = None, **options: Any):
        self.batch, self.module, self.resume, self.options = batch, module, resume, options
        self.core: Cuttlefish | None = None
        self._step = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Build the core before Lightning loads weights, so that they find the architecture of their time."""
        if stage != "fit":
            return
        if trainer.world_size > 1:
            raise CuttlefishError(
                f"CuttlefishCallback was given {trainer.world_size} processes, whose DDP would go on with "
                "the old weights after the switch: train on one, or write the loop with Cuttlefish itself"
            )
        state = None
        if self.resume is not None:
            checkpoint = torch.load(self.resume, map_location="cpu", weights_only=True)
            state = checkpoint["callbacks"].get(self.state_key)
        epochs = None if self.options.get("interval") else trainer.max_epochs
        options: dict[str, Any] = {"epochs": epochs} | self.options
        self.core = Cuttlefish(self._network(pl_module), self.batch, state=state, **options)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step
        mine = set(self._running().model.parameters())
        for optimizer in trainer.optimizers:
            if any(not mine.isdisjoint(group["params"]) for group in optimizer.param_groups):
                self._running().optimizer(optimizer)
        callbacks: list[Callback] = getattr(trainer, "callbacks", [])
        for callback in callbacks:
            average = getattr(callback, "_average_model", None)  # of WeightAveraging and its like
            if isinstance(average, nn.Module):
                self._running().follow(self._network(inner_model(average)))

    def on_before_optimizer_step(self, *_: Any, **named: Any) -> None:
        self._running().before_step()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **named: Any) -> None:
        if self._running().interval is not None and trainer.global_step > self._step:
            self._step = trainer.global_step
            self._running().step_end()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._running().interval is None:
            self._running().epoch_end()

    @property
    def state_key(self) -> str:
        return f"{type(self).__qualname__}({self.module})"

    def state_dict(self) -> dict[str, Any]:
        return {} if self.core is None else self.core.state_dict()

    def _running(self) -> Cuttlefish:
        if self.core is None:
            raise CuttlefishError("CuttlefishCallback was called in a training that it did not see begin.")
        return self.core

    def _network(self, pl_module: nn.Module) -> nn.Module:
        network = getattr(pl_module, self.module, None)
        if not isinstance(network, nn.Module):
            raise CuttlefishError(
                f"the {type(pl_module).__name__} has no network {self.module!r}: name the attribute that "
                "holds it by module="
            )
        return network
