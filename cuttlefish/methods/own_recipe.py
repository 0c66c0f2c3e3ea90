"""A method's own optimizer, schedule and epochs, where its authors' recipe differs from the run's."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from cuttlefish.config.recipe import Epochs, OptimizerConfig, RecipeConfig, ScheduleConfig
from cuttlefish.config.validate import convert
from cuttlefish.limits import Checked, OptionsOf


@dataclass(frozen=True)
class Changes(Checked):
    """Fields of the run's recipe that a method can replace; the batch size stays the run's."""

    epochs: Epochs = 1
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)


OwnRecipe = Annotated[dict[str, Any], OptionsOf(Changes)]
"""A knob that overrides part of the recipe: {epochs: 160, optimizer: {weight_decay: …}, schedule: {…}}."""


def own_recipe(
    recipe: RecipeConfig, changes: Mapping[str, Any], where: str = "method.recipe"
) -> RecipeConfig:
    """Return `recipe` updated with `changes` (see `OwnRecipe`).

    Raises:
        CuttlefishError: A key is not in `Changes`, or the result is not a valid recipe.
    """
    own = {key: asdict(recipe)[key] for key in ("epochs", "optimizer", "schedule")}
    for key, value in changes.items():
        own[key] = {**own[key], **value} if isinstance(value, Mapping) and key in own else value
    convert(own, Changes, where)
    return convert({**asdict(recipe), **own}, RecipeConfig, where)
