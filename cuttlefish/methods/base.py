"""The interface of a training method: phases, and a few hooks that do nothing by default.

Full-rank training is therefore the empty method. A method never touches the optimizer, compilation,
distribution or the timer: it changes the model in place, returns a `Transition`, and the trainer does the
rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from cuttlefish.config.recipe import OptimizerConfig, RecipeConfig
from cuttlefish.limits import Checked
from cuttlefish.lowrank.decay import FrobeniusDecay, decay_groups
from cuttlefish.methods.own_recipe import own_recipe
from cuttlefish.methods.schedule import Schedule
from cuttlefish.tasks.base import Batch


@dataclass(frozen=True)
class Transition:
    """Notice that the method changed the model in place: the trainer rebuilds optimizer, graphs and DDP.

    Attributes:
        schedule: The learning-rate schedule from here on; None keeps the current one.
    """

    reason: str
    schedule: Schedule | None = None


@dataclass(frozen=True)
class Phase:
    """A stretch of training under one optimizer and one schedule.

    Attributes:
        epochs: Epochs of the schedule to train (`range(6, 300)` starts at the learning rate of epoch 6).
        until: Called before each epoch, after `on_epoch_start`; True ends the phase before that epoch.
        optimizer, schedule: None means the recipe's.
        enter: Called once, before the phase's new optimizer is made; may change the model.
    """

    name: str
    epochs: range
    until: Callable[[], bool] | None = None
    optimizer: OptimizerConfig | None = None
    schedule: Schedule | None = None
    enter: Callable[[Context], None] | None = None


@dataclass
class Context:
    """View of the run for a method. The trainer owns it and keeps `model`, `epoch` and `schedule` current."""

    model: nn.Module
    """The model without wrappers or compilation."""
    model_name: str
    data_name: str
    recipe: RecipeConfig
    schedule: Schedule
    device: torch.device
    folder: Path
    """The run folder."""
    deterministic: bool
    example_batch: Callable[[], Batch]
    """Return a training batch of this process, always the same, in the run's batch size and memory layout."""
    samples: Callable[..., Iterator[Batch]]
    """Yield augmented training batches without end, seeded and independent of the training order;
    `samples(n)` begins with the n-th shuffled order."""
    autocast: Callable[[], AbstractContextManager]
    """Return the autocast context of the run's precision."""
    broadcast: Callable[[Any], Any]
    """Return the first process's value on every process: use it on values measured, drawn or decomposed."""
    log: Callable[[str], None]
    log_ranks: Callable[[list[dict[str, Any]]], None]
    """Log rows (epoch, layer, stable_rank, scaled_rank, full_rank) to ranks.csv and the rank curves. Within
    epochs, `epoch` is a decimal."""
    log_profile: Callable[[dict[str, Any]], None]
    """Log a stack profile to profile.json, the console and the plot."""
    section: Callable[[str], AbstractContextManager]
    """Charge the enclosed time to a section of the timer (profiling, ranks, switch, masks, scoring, …)."""
    saved: Callable[[], dict[str, Any]]
    """Return the method's state in the newest checkpoint, from which the run resumes; empty for a new run."""
    class_counts: list[int] = field(default_factory=list)
    """Number of training samples of each class; empty for a regression."""
    steps: int = 1
    """Optimizer steps of an epoch."""
    counts_full: dict[str, int] = field(default_factory=dict)
    """`params` and `macs` of the full-rank model."""


class Method:
    """Base class of methods. `version` is part of the run key: raise it when a change alters results.

    A method is a module in `cuttlefish/methods/` or `baselines/` with the name of its file in `conf/method/`,
    or a folder with a module `method`, which holds one subclass with the same `name`. `Settings` is a
    dataclass of its knobs, whose defaults are the clean variant. In a folder it has a module of its own,
    `settings`, which needs no torch: wrong knobs are then refused before torch is imported.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    no_fork: ClassVar[str] = "keeps a state of its own from its first epoch on"
    """Why it cannot start from another method's state (`fork_from`); empty if the weights and the rank
    history suffice."""
    interval: int | None = None
    """Steps between calls of `on_interval`; None: it is not called."""
    decay: FrobeniusDecay | None = None
    """Frobenius decay of the model's factors, where the method wants it."""

    @dataclass(frozen=True)
    class Settings(Checked):
        pass

    def __init__(self, settings: Any):
        self.settings = settings

    @classmethod
    def planned_epochs(cls, settings: Any, recipe: RecipeConfig) -> int | None:
        """Return the total epochs of all phases from the settings alone; None if they depend on the model."""
        return own_recipe(recipe, getattr(settings, "recipe", {})).epochs

    def prepare(self, context: Context) -> None:
        """Check the full-rank model and the data, and build the method's state; called once before training.

        It must not change the model. On resume `load_state_dict` follows, otherwise `on_fit_start`.

        Raises:
            CuttlefishError: The method does not support this model or data.
        """

    def on_fit_start(self, context: Context) -> None:
        """Run once on the initial weights before the first phase, not on resume; may change the model."""

    def phases(self, context: Context) -> Iterator[Phase]:
        """Yield the phases in order, from the state and without side effects: a resume calls it again."""
        yield Phase("train", range(context.recipe.epochs))

    def on_epoch_start(self, context: Context, epoch: int) -> Transition | None:
        """Inspect the weights before epoch `epoch` of the schedule; may change the model."""

    def on_interval(self, context: Context, steps: int) -> Transition | None:
        """Do as in `on_epoch_start`, but after every `interval` steps, also within epochs.

        Args:
            steps: Optimizer steps so far, over all phases: a multiple of `interval`.
        """

    def param_groups(self, model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
        """Return optimizer groups, every trainable parameter in one.

        Default: no decay for what Frobenius decay is for, and for 1-D parameters, unless there is a knob
        `decay_all` and it is true.
        """
        groups = all_decayed if getattr(self.settings, "decay_all", False) else decay_groups
        return groups(model, weight_decay, set() if self.decay is None else self.decay.parameters())

    def on_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Learn of a new optimizer before its first step: at a phase's start, after a transition."""
        if self.decay is not None:
            self.decay.attach(optimizer)

    def on_gradients(self, model: nn.Module) -> None:
        """Change gradients after backward (and all-reduce), before the optimizer's step."""
        if self.decay is not None:
            self.decay.add_gradients()

    def on_step_end(self, model: nn.Module) -> None:
        """Change weights after the optimizer's step."""

    def evaluating(self, model: nn.Module) -> AbstractContextManager:
        """Return a context manager around every evaluation."""
        return nullcontext()

    def on_fit_end(self, context: Context) -> dict[str, Any]:
        """Return fields for the record."""
        return {}

    def stored_bits(self, model: nn.Module) -> int | None:
        """Return the bits needed to store the model, if not 32 per parameter."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state in tensors and plain containers: checkpoints are read with `weights_only`."""
        return {}

    def load_state_dict(self, context: Context, state: dict[str, Any]) -> None:
        """Restore a saved state.

        `context.model` is a new full-rank model: give it the architecture of the state; the saved weights are
        loaded afterwards.
        """


def all_decayed(
    model: nn.Module, weight_decay: float, without_decay: Set[nn.Parameter] = frozenset()
) -> list[dict[str, Any]]:
    """Return optimizer groups with weight decay on biases and norms too, as in many authors' code."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trained if parameter not in without_decay]
    free = [parameter for parameter in trained if parameter in without_decay]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
