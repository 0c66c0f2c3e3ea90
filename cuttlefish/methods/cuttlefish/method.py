"""Cuttlefish as a method of the trainer, with the decisions made by `cuttlefish.auto`."""

from collections.abc import Iterator
from dataclasses import fields, replace
from math import ceil
from typing import Any

from torch import nn
from torch.optim import Optimizer

from cuttlefish.auto import Cuttlefish
from cuttlefish.auto.ranks import within_budget
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.check import check_settings
from cuttlefish.lowrank.path import candidates, main_path
from cuttlefish.lowrank.settings import Settings as CoreSettings
from cuttlefish.methods.base import Context, Method, Phase, Transition
from cuttlefish.methods.cuttlefish.settings import Settings
from cuttlefish.methods.interval import as_epochs, check_interval
from cuttlefish.methods.schedule import Linear, Milestones, Schedule, build_schedule
from cuttlefish.record.folder import read_profile


class CuttlefishMethod(Method):
    """One phase with a switch in it.

    The core is built when training starts, so that its profiling is charged to the run.
    """

    name = "cuttlefish"
    no_fork = ""
    Settings = Settings
    core: Cuttlefish
    chosen: CoreSettings
    """Settings of the core: the method's own, or those a subclass derives from its own."""

    def __init__(self, settings: Any):
        super().__init__(settings)
        self.interval = getattr(settings, "interval", None)

    def core_settings(self, context: Context) -> CoreSettings:
        """Return the settings of the core for this model."""
        return CoreSettings(
            **{field.name: getattr(self.settings, field.name) for field in fields(CoreSettings)}
        )

    def prepare(self, context: Context) -> None:
        self.chosen = self.core_settings(context)
        self.chosen.check()
        check_interval(self.interval, context.recipe.epochs * context.steps)
        self._schedule(context)
        inputs = context.example_batch().inputs
        path = main_path(context.model, inputs, shortcuts=self.chosen.factorize_shortcuts)
        check_settings(self.chosen, context.model, path, self._length(context))
        possible = candidates(context.model, path, self.chosen.leading(otherwise=1))
        within_budget(context.model, dict.fromkeys(possible, 1), self.chosen)  # a profile adds no layer

    def phases(self, context: Context) -> Iterator[Phase]:
        yield Phase("train", range(context.recipe.epochs), schedule=self._schedule(context))

    def on_fit_start(self, context: Context) -> None:
        self._build(context, profile=context.broadcast(read_profile(context.folder)))
        if self.core.profile is not None:
            context.log_profile(self.core.profile)

    def on_epoch_start(self, context: Context, epoch: int) -> Transition | None:
        return self._update(context, epoch, epoch) if self.interval is None or epoch == 0 else None

    def on_interval(self, context: Context, steps: int) -> Transition | None:
        return self._update(context, steps // self.interval, as_epochs(steps, context.steps))

    def _update(self, context: Context, number: int, epoch: float) -> Transition | None:
        """Make update `number` of the ranks, which sees the weights after `epoch` epochs."""
        dense = not self.core.switched
        switched = number > 0 and self.core.epoch_end(number - 1)
        if dense:
            context.log_ranks([row | {"epoch": epoch} for row in self.core.tracker.rows()])
        if not switched:
            return None
        start = epoch if context.schedule.by_step else ceil(epoch)
        schedule = self._restarted(context.schedule, start) if self.chosen.rewarm else None
        return Transition(f"switch at epoch {epoch:.6g} ({self.core.reason})", schedule)

    def _restarted(self, schedule: Schedule, start: float) -> Schedule:
        """Return the schedule from the switch on."""
        again = schedule.restarted(start, self.chosen.overshoot)
        if getattr(self.settings, "restart_scale", 1.0) != 1.0:
            again = again.scaled(self.settings.restart_scale)
        if getattr(self.settings, "forget_milestones", False) and isinstance(again, Milestones):
            again = again.forgetting(start)
        return again

    def _length(self, context: Context) -> int:
        """Return the run's length in epochs, or in intervals where they take the place of epochs."""
        epochs = context.recipe.epochs
        return epochs if self.interval is None else ceil(epochs * context.steps / self.interval)

    def param_groups(self, model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
        return self.core.param_groups(weight_decay)

    def on_optimizer(self, optimizer: Optimizer) -> None:
        if self.core.decay is not None:
            self.core.decay.attach(optimizer)

    def on_gradients(self, model: nn.Module) -> None:
        self.core.before_step()

    def on_fit_end(self, context: Context) -> dict[str, Any]:
        core = self.core
        found = {
            "k": core.k,
            **self._switch(context),
            "switch_reason": core.reason or "never",
            "ranks": core.final_ranks(),
            "kept_dense": core.kept_dense,
        }
        if self.chosen.rank_floor and core.switched:
            found["on_floor"] = [name for name in found["ranks"] if name in core.on_floor]
        return found if core.profile is None else found | {"profile": core.profile}

    def _switch(self, context: Context) -> dict[str, Any]:
        """Return whole dense epochs and dense steps before the switch."""
        number = self.core.switch_epoch
        steps = None if number is None else number * (self.interval or context.steps)
        return {"switch_epoch": steps and steps // context.steps, "switch_step": steps}

    def state_dict(self) -> dict[str, Any]:
        return self.core.state_dict()

    def load_state_dict(self, context: Context, state: dict[str, Any]) -> None:
        self._build(context, state=state)

    def _schedule(self, context: Context) -> Schedule | None:
        """Return the schedule in two parts, one to the switch and one from it; None: the recipe's."""
        recipe, restart_lr = context.recipe, getattr(self.settings, "restart_lr", None)
        schedule = build_schedule(recipe.schedule, recipe.epochs)
        if isinstance(schedule, Linear) and getattr(self.settings, "restart_scale", 1.0) != 1.0:
            raise CuttlefishError(
                "method.restart_scale is of milestones and cosine; a linear schedule takes method.restart_lr"
            )
        if restart_lr is None:
            return None
        if not isinstance(schedule, Linear):
            raise CuttlefishError(
                f"method.restart_lr={restart_lr} needs recipe.schedule.name=linear, "
                f"not {recipe.schedule.name}"
            )
        until = self.chosen.switch_epoch
        if self.interval is not None:
            until = until * self.interval / context.steps
        return replace(schedule.own_part(until), restart_lr=restart_lr)

    def _build(self, context: Context, **earlier: dict[str, Any] | None) -> None:
        inputs = context.example_batch().inputs
        self.core = Cuttlefish(
            context.model, inputs, epochs=self._length(context), settings=self.chosen,
            autocast=context.autocast, cost_model=context.deterministic, broadcast=context.broadcast,
            section=context.section, guard=False, **earlier,
        )  # fmt: skip
