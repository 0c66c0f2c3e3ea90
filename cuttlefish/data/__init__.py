"""Data sets whose images live on the training device. Importing this package does not import torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cuttlefish.data.resident import Batch, ResidentImages
    from cuttlefish.data.task import Task, load_task

HOMES = {"Batch": "resident", "ResidentImages": "resident", "Task": "task", "load_task": "task"}

__all__ = ["Batch", "ResidentImages", "Task", "load_task"]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
