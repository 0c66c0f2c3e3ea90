"""A method's own optimizer, schedule and length, where its authors did not train by the run's recipe."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import nn

from cuttlefish.config.checks import check_optimizer, check_schedule
from cuttlefish.config.schema import RecipeConfig
from cuttlefish.config.validate import build_settings
from cuttlefish.errors import CuttlefishError

CHANGEABLE = ("epochs", "optimizer", "schedule")


def own_recipe(
    recipe: RecipeConfig, changes: Mapping[str, Any], where: str = "method.recipe"
) -> RecipeConfig:
    """`recipe` with `changes` laid over it: {epochs: 160, optimizer: {weight_decay: …}, schedule: {peak_lr: …}}, each optional.

    Raises CuttlefishError for other keys (the batch belongs to the run) and for values that `conf/recipe` would refuse.
    """
    for key in changes:
        if key not in CHANGEABLE:
            raise CuttlefishError(
                f"{where}.{key}: a method can replace the recipe's {', '.join(CHANGEABLE)}, nothing else"
            )
    merged = asdict(recipe)
    for key, value in changes.items():
        merged[key] = {**merged[key], **value} if isinstance(value, Mapping) else value
    own = build_settings(RecipeConfig, merged, where)
    if own.epochs < 1:
        raise CuttlefishError(f"{where}.epochs must be at least 1, not {own.epochs}")
    check_optimizer(own.optimizer, f"{where}.optimizer")
    check_schedule(own.schedule, own.epochs, f"{where}.schedule")
    return own


def all_decayed(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """One optimizer group: weight decay on biases and norms too, as many authors' code has it."""
    return [
        {
            "params": [parameter for parameter in model.parameters() if parameter.requires_grad],
            "weight_decay": weight_decay,
        }
    ]
