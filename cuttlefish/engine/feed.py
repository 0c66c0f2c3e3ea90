"""Which batches a run sees: training from any step of an epoch, evaluation, and the debugging modes."""

import math
from collections.abc import Iterator
from itertools import islice

from cuttlefish.config.schema import Config
from cuttlefish.data.resident import Batch
from cuttlefish.data.task import Task
from cuttlefish.engine.distributed import World


class Feed:
    """steps: optimizer steps an epoch."""

    def __init__(self, config: Config, task: Task, world: World):
        self.recipe, self.trainer, self.seed, self.task, self.world = (
            config.recipe,
            config.trainer,
            config.seed,
            task,
            world,
        )
        steps = math.ceil(len(task.train) / self.recipe.batch_size)
        self.steps = min(steps, self.trainer.max_steps or steps)

    def train(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """This process's shares of one epoch's batches, from step `first` on. epoch: counted over all phases."""
        if self.trainer.overfit:
            return iter([self._example(self.recipe.batch_size)] * (self.steps - first))
        stream = self.task.train.batches(
            self.recipe.batch_size,
            seed=self.seed,
            epoch=epoch,
            train=True,
            process=self.world.process,
            processes=self.world.processes,
        )
        return islice(stream, first, self.steps)

    def evaluate(self) -> Iterator[Batch]:
        """This process's shares of the evaluation set, the same number of them on all processes."""
        if self.trainer.overfit:
            return iter([self._example(self.recipe.batch_size)])
        stream = self.task.test.batches(
            self.recipe.eval_batch_size,
            seed=self.seed,
            epoch=0,
            train=False,
            process=self.world.process,
            processes=self.world.processes,
        )
        return islice(stream, self.trainer.max_eval_batches)

    def shapes(self) -> list[Batch]:
        """One batch of each size that training will see."""
        whole, rest = divmod(len(self.task.train), self.recipe.batch_size)
        sizes = [self.recipe.batch_size] * bool(whole) + [rest] * bool(rest and self.steps > whole)
        return [self._example(max(size // self.world.processes, 1)) for size in sizes]

    def shapes_of_evaluation(self) -> list[Batch]:
        """One batch of each size that evaluation will see."""
        return list({len(batch.labels): batch for batch in self.evaluate()}.values())

    def _example(self, size: int) -> Batch:
        images, labels = self.task.train.example(min(size, len(self.task.train)))
        return Batch(images, labels, len(labels))
