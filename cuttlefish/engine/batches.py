"""The batches of a run: training from any step of an epoch, evaluation, and the debugging modes."""

import math
from collections.abc import Iterator
from itertools import islice

from torch.utils._pytree import tree_leaves

from cuttlefish.config.recipe import RecipeConfig
from cuttlefish.config.schema import TrainerConfig
from cuttlefish.engine.processes.world import World
from cuttlefish.tasks.base import Batch, Task


class Batches:
    """This process's shares of the global batches; `steps` is the number of optimizer steps per epoch."""

    def __init__(self, task: Task, recipe: RecipeConfig, trainer: TrainerConfig, seed: int, world: World):
        self.task, self.recipe, self.trainer, self.seed, self.world = task, recipe, trainer, seed, world
        steps = math.ceil(task.train_size / recipe.batch_size)
        self.steps = min(steps, trainer.max_steps or steps)

    def train(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield one epoch's batches from step `first` on. Epochs are counted over all phases."""
        if self.trainer.overfit:
            return iter([self._example(self.recipe.batch_size)] * (self.steps - first))
        shares = self.task.train_batches(
            self.recipe.batch_size, seed=self.seed, epoch=epoch, first=first, **self._share()
        )
        return islice(shares, self.steps - first)

    def evaluate(self, split: str) -> Iterator[Batch]:
        """Yield one of the evaluation sets, the same number of batches on all processes."""
        if self.trainer.overfit:
            return iter([self._example(self.recipe.batch_size)])
        shares = self.task.eval_batches(self.recipe.eval_batch_size, split=split, **self._share())
        return islice(shares, self.trainer.max_eval_batches)

    def train_shapes(self) -> list[Batch]:
        """Return one batch of each shape used in training."""
        sizes = [max(size // self.world.processes, 1) for size in self._train_sizes()]
        return [batch for size in sizes for batch in self.task.shapes(size)]

    def smallest(self) -> int:
        """Return the smallest number of samples a batch norm sees in one training step."""
        shares = 1 if self.trainer.sync_bn else self.world.processes
        return min(max(size // shares, 1) for size in self._train_sizes())

    def evaluation_shapes(self) -> list[Batch]:
        """Return one batch of each shape used in evaluation."""
        batches = (batch for split in self.task.evaluation_sets for batch in self.evaluate(split))
        return list({_shape(batch): batch for batch in batches}.values())

    def _train_sizes(self) -> list[int]:
        """Return the distinct sizes of an epoch's global batches."""
        whole, rest = divmod(self.task.train_size, self.recipe.batch_size)
        if self.trainer.overfit:
            return [min(self.recipe.batch_size, self.task.train_size)]
        return [self.recipe.batch_size] * bool(whole) + [rest] * bool(rest and self.steps > whole)

    def _share(self) -> dict[str, int]:
        return {"process": self.world.process, "processes": self.world.processes}

    def _example(self, size: int) -> Batch:
        return self.task.example_batch(min(size, self.task.train_size))


def _shape(batch: Batch) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(tensor.shape) for tensor in tree_leaves(batch.inputs))
