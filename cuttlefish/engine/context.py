"""The view of a run that its method gets."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cuttlefish.config.schema import Config
from cuttlefish.data.task import Task
from cuttlefish.engine.clock import Clock
from cuttlefish.engine.device import autocast
from cuttlefish.engine.distributed import World
from cuttlefish.loggers.base import Loggers
from cuttlefish.methods.base import Context
from cuttlefish.methods.schedule import build_schedule
from cuttlefish.record.atomic import write_atomic
from cuttlefish.record.folder import PROFILE
from cuttlefish.record.record import plain


def make_context(
    config: Config, task: Task, model: nn.Module, *, device: torch.device, world: World, folder: Path, loggers: Loggers, clock: Clock,
    saved: Callable[[], dict[str, Any]],
) -> Context:  # fmt: skip
    size = min(max(config.recipe.batch_size // world.processes, 1), len(task.train))

    def log_profile(profile: dict[str, Any]) -> None:
        if world.is_first:
            write_atomic(folder / PROFILE, json.dumps(plain(profile), indent=2))
        loggers.profile(profile)

    def example_batch() -> tuple[Tensor, Tensor]:
        return task.train.example(size)

    return Context(
        model=model,
        model_name=config.model.name,
        data_name=config.data.name,
        recipe=config.recipe,
        schedule=build_schedule(config.recipe.schedule, config.recipe.epochs),
        device=device,
        folder=folder,
        deterministic=config.trainer.deterministic,
        example_batch=example_batch,
        samples=lambda order=0: task.train.samples(size, config.seed, order),
        autocast=lambda: autocast(config.trainer, device),
        agree=world.agree,
        log=loggers.message,
        log_ranks=loggers.ranks,
        log_profile=log_profile,
        part=clock.part,
        saved=saved,
        images_of_class=task.train.labels.cpu().bincount(minlength=task.classes).tolist(),
    )
