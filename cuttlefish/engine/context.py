"""Build the `Context` through which a method sees its run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cuttlefish.config.recipe import RecipeConfig
from cuttlefish.config.schema import TrainerConfig
from cuttlefish.engine.device import autocast
from cuttlefish.engine.processes.world import World
from cuttlefish.engine.timer import Timer
from cuttlefish.errors import CuttlefishError
from cuttlefish.loggers.base import Loggers
from cuttlefish.methods.base import Context
from cuttlefish.methods.schedule import Schedule, build_schedule, timed
from cuttlefish.record.atomic import write_atomic
from cuttlefish.record.folder import PROFILE
from cuttlefish.record.record import plain
from cuttlefish.tasks.base import Task


def make_context(
    model: nn.Module, task: Task, recipe: RecipeConfig, trainer: TrainerConfig, *, model_name: str, seed: int,
    device: torch.device, world: World, folder: Path, loggers: Loggers, timer: Timer,
    saved: Callable[[], dict[str, Any]], steps: int,
) -> Context:  # fmt: skip
    size = min(max(recipe.batch_size // world.processes, 1), task.train_size)

    def log_profile(profile: dict[str, Any]) -> None:
        if world.is_first:
            write_atomic(folder / PROFILE, json.dumps(plain(profile), indent=2))
        loggers.profile(profile)

    def log_ranks(rows: list[dict[str, Any]]) -> None:
        loggers.ranks([row | {"step": round(row["epoch"] * steps)} for row in rows])

    return Context(
        model=model,
        model_name=model_name,
        data_name=task.name,
        recipe=recipe,
        schedule=_schedule(recipe, steps),
        device=device,
        folder=folder,
        deterministic=trainer.deterministic,
        example_batch=lambda: task.example_batch(size),
        samples=lambda order=0: task.samples(size, seed, order),
        autocast=lambda: autocast(trainer, device),
        broadcast=world.broadcast_object,
        log=loggers.message,
        log_ranks=log_ranks,
        log_profile=log_profile,
        section=timer.section,
        saved=saved,
        class_counts=task.class_counts(),
        steps=steps,
    )


def _schedule(recipe: RecipeConfig, steps: int) -> Schedule:
    """Return the recipe's schedule. Raises CuttlefishError for a warm-up that outlasts the run."""
    warmup, whole = recipe.schedule.warmup_steps, recipe.epochs * steps
    if warmup > whole:
        raise CuttlefishError(
            f"recipe.schedule.warmup_steps={warmup} does not fit into the run's {whole} steps; choose fewer"
        )
    return timed(build_schedule(recipe.schedule, recipe.epochs), steps)
