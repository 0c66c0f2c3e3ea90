"""One optimizer step: the optimizer, compilation, DDP and synchronised batch norm."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from cuttlefish.config.recipe import OptimizerConfig, RecipeConfig
from cuttlefish.config.schema import TrainerConfig
from cuttlefish.engine.device import autocast
from cuttlefish.engine.evaluate import at_least_float32
from cuttlefish.engine.processes.stochastic_depth import StochasticDepth
from cuttlefish.engine.processes.sync_bn import statistics_kept, synchronise
from cuttlefish.engine.processes.world import World
from cuttlefish.lowrank.layout import to_channels_last
from cuttlefish.lowrank.trace import call_model
from cuttlefish.methods.base import Method
from cuttlefish.tasks.base import Batch, Task


class StepRunner:
    """Run optimizer steps on the current architecture; rebuilt at every phase and transition.

    Nothing else touches the optimizer, compilation or DDP.

    Attributes:
        model: The unwrapped module, whose parameters the optimizer updates.
        run: The callable of a step: the module itself, or DDP around it.
        number: Steps of the run before the next one.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        method: Method,
        recipe: RecipeConfig,
        lr: float,
        trainer: TrainerConfig,
        world: World,
        device: torch.device,
        seed: int = 0,
    ):
        self.model, self.task, self.method, self.recipe = model, task, method, recipe
        self.trainer, self.world, self.device = trainer, world, device
        if trainer.channels_last:
            to_channels_last(model)
        model.train()
        self.depth, self.number = StochasticDepth(model, seed), 0
        if trainer.compile:
            # nn.Module.compile keeps state-dict keys; the reset drops the old graphs of a changed model.
            torch._dynamo.reset()
            model.compile(dynamic=False)
        if trainer.sync_bn and world.processes > 1:
            synchronise(model)
        self.run = world.wrap(model, device)
        groups = method.param_groups(model, recipe.optimizer.weight_decay)
        self.optimizer = build_optimizer(recipe.optimizer, groups, lr)
        method.on_optimizer(self.optimizer)

    def step(self, batch: Batch, sums: Tensor) -> None:
        """Take one step and add (sum of losses, correct, samples) to `sums` without a host sync."""
        *others, last = batch.parts(self.recipe.accumulate)
        if others:
            with self._unsynchronised():
                for part in others:
                    self._backward(part, sums)
        self._backward(last, sums)
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.method.on_gradients(self.model)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.depth.forget()
        self.method.on_step_end(self.model)

    def warm_up(self, batches: Iterable[Batch]) -> None:
        """Compile for the shapes of `batches`; weights, statistics and random state are unchanged."""
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            for batch in batches:
                self.depth.choose(batch, 0)
                loss, _ = self._forward(batch)
                loss.backward()
                self.optimizer.zero_grad(set_to_none=True)
        self.depth.forget()
        for name, buffer in self.model.named_buffers():
            buffer.copy_(buffers[name])

    @property
    def lr(self) -> float:
        """The learning rate of the last step."""
        return self.optimizer.param_groups[0]["lr"]

    def set_lr(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def _backward(self, batch: Batch, sums: Tensor) -> None:
        self.depth.choose(batch, self.number)
        with statistics_kept(self.model, len(batch)):
            loss, outputs = self._forward(batch)
        # Mean over the global batch, whatever this process's share: DDP averages over processes.
        (loss * (self.world.processes / batch.global_size)).backward()
        with torch.no_grad():
            sums[0] += loss
            sums[1] += self.task.correct(outputs, batch)
            sums[2] += len(batch)

    def _unsynchronised(self) -> AbstractContextManager:
        """Return a context in which backward passes leave the sum over processes to a later one."""
        return self.run.no_sync() if self.world.processes > 1 else nullcontext()

    def _forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        with autocast(self.trainer, self.device):
            outputs = at_least_float32(call_model(self.run, batch.inputs))
        return self.task.loss(outputs, batch, self.recipe.label_smoothing), outputs


def allow_graphs(shapes: int) -> None:
    """Let torch.compile keep a graph for each shape in either mode; past its limit it runs eagerly."""
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, 2 * shapes)


def build_optimizer(
    config: OptimizerConfig, groups: list[dict[str, Any]], lr: float
) -> torch.optim.Optimizer:
    """Build the optimizer over the groups of `Method.param_groups`, each with its own weight decay."""
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=tuple(config.betas), eps=config.eps, fused=True)
    return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, nesterov=config.nesterov, fused=True)
