"""A toy regression, written as the author of a new task would: how bright is an image on the whole?"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from cuttlefish.limits import Checked, Within
from cuttlefish.tasks.files import digest_of
from cuttlefish.tasks.registry import DataSet


@dataclass(frozen=True)
class Settings(Checked):
    size: Annotated[int | None, Within(1, 1000)] = None
    noise: Annotated[float, Within(0, 1)] = 0.0


class Toy(DataSet):
    title = "Toy"
    Settings = Settings

    def digest(self, config):
        settings = self.settings(config)
        return digest_of({"toy": 1, "size": settings.size, "noise": settings.noise})

    def task(self, config, device, dtype):
        import torch  # the table of data sets is read before torch is

        from cuttlefish.tasks.base import Batch, Task
        from cuttlefish.tasks.metrics import Gathered

        settings = self.settings(config.data)
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(settings.size + 15, 3, 8, 8, generator=generator, dtype=torch.float64)
        images *= torch.rand(len(images), 1, 1, 1, generator=generator, dtype=torch.float64)
        values = images.mean((1, 2, 3)) + settings.noise * torch.rand(len(images), generator=generator)
        images, values = images.to(device, dtype), values.to(device, torch.float32)

        def score(predictions, targets):
            return {
                "pearson": 100 * np.corrcoef(predictions, targets)[0, 1],
                "mae": np.abs(predictions - targets).mean(),
            }

        class Brightness(Task):
            name, digest, classes, train_size = (
                config.data.name,
                self.digest(config.data),
                None,
                settings.size,
            )
            primary, lower_is_better, evaluation_sets = "pearson", frozenset({"mae"}), ("", "far")
            input_shape, unit = (3, 8, 8), "picture"

            def batch(self, index, global_size=None):
                return Batch(images[index], values[index], len(index) if global_size is None else global_size)

            def shares(self, order, batch_size, first, process, processes):
                for start in range(first * batch_size, len(order), batch_size):
                    chosen = order[start : start + batch_size]
                    part = chosen.tensor_split(processes)[process]
                    yield self.batch(part, len(chosen))

            def train_batches(self, batch_size, *, seed, epoch, first=0, process=0, processes=1):
                order = torch.randperm(self.train_size, generator=torch.Generator().manual_seed(seed + epoch))
                return self.shares(order, batch_size, first, process, processes)

            def eval_batches(self, batch_size, *, split="", process=0, processes=1):
                half = {"": range(8), "far": range(8, 15)}[split]
                return self.shares(torch.tensor(half) + self.train_size, batch_size, 0, process, processes)

            def example_batch(self, size):
                return self.batch(torch.arange(min(size, self.train_size)))

            def samples(self, size, seed, order=0):
                while True:
                    yield from self.train_batches(size, seed=seed, epoch=order)

            def metrics(self, split=""):
                return Gathered(score)

        return Brightness()


DATA_SETS = {"toy": Toy()}
