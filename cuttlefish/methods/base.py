"""What a training method is to the trainer: phases and a handful of hooks, which do nothing by default.

Full-rank training is therefore the empty method. A method never touches the optimizer, compilation,
distribution or the timer: it changes the model in place, says so with a `Transition`, and the trainer does
the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cuttlefish.config.schema import OptimizerConfig, RecipeConfig
from cuttlefish.limits import Checked
from cuttlefish.lowrank.decay import decay_groups
from cuttlefish.methods.own_recipe import own_recipe
from cuttlefish.methods.schedule import Schedule


@dataclass(frozen=True)
class Transition:
    """The method has changed the model in place: the trainer makes a new optimizer, recompiles and re-wraps.

    Attributes:
        schedule: The learning-rate schedule from here on; None keeps the present one.
    """

    reason: str
    schedule: Schedule | None = None


@dataclass(frozen=True)
class Phase:
    """A stretch of training under one optimizer and one schedule.

    Attributes:
        epochs: The schedule's epochs that it covers (`range(6, 300)` starts at the learning rate of epoch 6).
        until: Asked before each epoch, after `on_epoch_start`; True ends the phase before that epoch is
            trained.
        optimizer, schedule: None means the recipe's.
        enter: Called once, before the phase's optimizer is made (every phase starts with a fresh one); may
            change the model.
    """

    name: str
    epochs: range
    until: Callable[[], bool] | None = None
    optimizer: OptimizerConfig | None = None
    schedule: Schedule | None = None
    enter: Callable[[Context], None] | None = None


@dataclass
class Context:
    """What a method may see. The trainer owns it and keeps `model`, `epoch` and `schedule` current."""

    model: nn.Module
    """The bare model: not wrapped, its own forward."""
    model_name: str
    data_name: str
    recipe: RecipeConfig
    schedule: Schedule
    device: torch.device
    folder: Path
    """The run folder."""
    deterministic: bool
    example_batch: Callable[[], tuple[Tensor, Tensor]]
    """A training batch of this process, in the run's batch size and memory layout; always the same one."""
    samples: Callable[..., Iterator[tuple[Tensor, Tensor]]]
    """A seeded, endless stream of augmented training batches, apart from the training order; `samples(n)`
    begins with the n-th shuffled order."""
    autocast: Callable[[], AbstractContextManager]
    """The run's precision, for a forward pass."""
    broadcast: Callable[[Any], Any]
    """The first process's value, on every process: call it on whatever was measured, drawn or decomposed."""
    log: Callable[[str], None]
    log_ranks: Callable[[list[dict[str, Any]]], None]
    """Rows (epoch, layer, stable_rank, scaled_rank, full_rank) for ranks.csv and the rank curves."""
    log_profile: Callable[[dict[str, Any]], None]
    """A stack profile, for profile.json, the console and the plot."""
    section: Callable[[str], AbstractContextManager]
    """Names the section (profiling, ranks, switch, masks, scoring, …) to which the timer books what is
    inside."""
    saved: Callable[[], dict[str, Any]]
    """The method's own state in the folder's newest checkpoint, from which the run will go on; empty where it
    starts."""
    images_of_class: list[int] = field(default_factory=list)
    """In the training set."""
    counts_full: dict[str, int] = field(default_factory=dict)
    """params and macs of the full-rank model."""


class Method:
    """Base class. `version` is part of the run key: raise it when a change alters results.

    A method's module in `cuttlefish/methods/` or `baselines/` is named as its file in `conf/method/` and
    holds one subclass with the same `name`. `Settings` is a dataclass of its knobs; the defaults are the
    clean behaviour.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    no_fork: ClassVar[str] = "keeps a state of its own from its first epoch on"
    """Why it cannot start from another method's state (`fork_from`); empty where it can, from the weights and
    the rank history."""

    @dataclass(frozen=True)
    class Settings(Checked):
        pass

    def __init__(self, settings: Any):
        self.settings = settings

    @classmethod
    def planned_epochs(cls, settings: Any, recipe: RecipeConfig) -> int | None:
        """Return the epochs of all phases together, from the settings alone; None where they depend on the
        model."""
        return own_recipe(recipe, getattr(settings, "recipe", {})).epochs

    def prepare(self, context: Context) -> None:
        """Check the full-rank model and the data, and build the method's state; called once, before anything
        is trained.

        It leaves the model as it is. On resume `load_state_dict` follows it, otherwise `on_fit_start`.

        Raises:
            CuttlefishError: The method cannot treat this model or data.
        """

    def on_fit_start(self, context: Context) -> None:
        """Run once, on the initial weights, before the first phase (not again on resume); may change the
        model."""

    def phases(self, context: Context) -> Iterator[Phase]:
        """Yield the phases in order, from the method's state without side effects: resuming asks again."""
        yield Phase("train", range(context.recipe.epochs))

    def on_epoch_start(self, context: Context, epoch: int) -> Transition | None:
        """Look at the weights before epoch `epoch` of the schedule is trained; may change the model."""

    def param_groups(self, model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
        """Put every trainable parameter in exactly one group. Default: decay for kernels, none for 1-D."""
        return decay_groups(model, weight_decay)

    def on_gradients(self, model: nn.Module) -> None:
        """Change gradients after backward (and all-reduce), before the optimizer's step."""

    def on_step_end(self, model: nn.Module) -> None:
        """Change weights after the optimizer's step."""

    def evaluating(self, model: nn.Module) -> AbstractContextManager:
        """Surround every evaluation."""
        return nullcontext()

    def on_fit_end(self, context: Context) -> dict[str, Any]:
        """Return fields for the record."""
        return {}

    def stored_bits(self, model: nn.Module) -> int | None:
        """Return the bits needed to store the model, where they are not 32 a parameter."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain containers only: checkpoints are read with weights_only."""
        return {}

    def load_state_dict(self, context: Context, state: dict[str, Any]) -> None:
        """Take up a saved state.

        `context.model` is a fresh full-rank model: give it the architecture that the state implies; the saved
        weights are loaded after this.
        """
