"""The batches of a run: training from any step of an epoch, evaluation, and the debugging modes."""

import math
from collections.abc import Iterator
from itertools import islice

from cuttlefish.config.schema import RecipeConfig, TrainerConfig
from cuttlefish.data.resident import Batch
from cuttlefish.data.task import Task
from cuttlefish.engine.processes.world import World


class Batches:
    """This process's shares of the global batches; `steps` is the number of optimizer steps per epoch."""

    def __init__(self, task: Task, recipe: RecipeConfig, trainer: TrainerConfig, seed: int, world: World):
        self.task, self.recipe, self.trainer, self.seed, self.world = task, recipe, trainer, seed, world
        steps = math.ceil(len(task.train) / recipe.batch_size)
        self.steps = min(steps, trainer.max_steps or steps)

    def train(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield one epoch's batches from step `first` on. Epochs are counted over all phases."""
        if self.trainer.overfit:
            return iter([self._example(self.recipe.batch_size)] * (self.steps - first))
        shares = self.task.train.batches(
            self.recipe.batch_size, seed=self.seed, epoch=epoch, train=True, **self._share()
        )
        return islice(shares, first, self.steps)

    def evaluate(self) -> Iterator[Batch]:
        """Yield the evaluation set, the same number of batches on all processes."""
        if self.trainer.overfit:
            return iter([self._example(self.recipe.batch_size)])
        shares = self.task.test.batches(
            self.recipe.eval_batch_size, seed=self.seed, epoch=0, train=False, **self._share()
        )
        return islice(shares, self.trainer.max_eval_batches)

    def train_shapes(self) -> list[Batch]:
        """Return one batch of each size used in training."""
        return [self._example(max(size // self.world.processes, 1)) for size in self._train_sizes()]

    def smallest(self) -> int:
        """Return the smallest number of samples a batch norm sees in one training step."""
        shares = 1 if self.trainer.sync_bn else self.world.processes
        return min(max(size // shares, 1) for size in self._train_sizes())

    def evaluation_shapes(self) -> list[Batch]:
        """Return one batch of each size used in evaluation."""
        return list({len(batch.labels): batch for batch in self.evaluate()}.values())

    def _train_sizes(self) -> list[int]:
        """Return the distinct sizes of an epoch's global batches."""
        whole, rest = divmod(len(self.task.train), self.recipe.batch_size)
        if self.trainer.overfit:
            return [min(self.recipe.batch_size, len(self.task.train))]
        return [self.recipe.batch_size] * bool(whole) + [rest] * bool(rest and self.steps > whole)

    def _share(self) -> dict[str, int]:
        return {"process": self.world.process, "processes": self.world.processes}

    def _example(self, size: int) -> Batch:
        images, labels = self.task.train.example(min(size, len(self.task.train)))
        return Batch(images, labels, len(labels))
