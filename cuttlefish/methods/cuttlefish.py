"""Cuttlefish as a method of the trainer, with the decisions made by `cuttlefish.auto`."""

from typing import Any

from torch import nn

from cuttlefish.auto import Cuttlefish
from cuttlefish.lowrank.profiling import main_path
from cuttlefish.lowrank.settings import Settings
from cuttlefish.methods.base import Context, Method, Transition
from cuttlefish.record.folder import read_profile


class CuttlefishMethod(Method):
    """One phase with a switch in it.

    The core is built when training starts, so that its profiling is charged to the run.
    """

    name = "cuttlefish"
    no_fork = ""
    Settings = Settings
    core: Cuttlefish
    chosen: Settings
    """Settings of the core: the method's own, or those a subclass derives from its own."""

    def core_settings(self, context: Context) -> Settings:
        """Return the settings of the core for this model."""
        return self.settings

    def prepare(self, context: Context) -> None:
        self.chosen = self.core_settings(context)
        self.chosen.check()
        inputs = context.example_batch().inputs
        path = main_path(context.model, inputs, shortcuts=self.chosen.factorize_shortcuts)
        self.chosen.check_model(context.model, path, context.recipe.epochs)

    def on_fit_start(self, context: Context) -> None:
        self._build(context, profile=context.broadcast(read_profile(context.folder)))
        if self.core.profile is not None:
            context.log_profile(self.core.profile)

    def on_epoch_start(self, context: Context, epoch: int) -> Transition | None:
        dense = not self.core.switched
        switched = epoch > 0 and self.core.epoch_end(epoch - 1)
        if dense:
            context.log_ranks(self.core.tracker.rows())
        if not switched:
            return None
        schedule = context.schedule.restarted(epoch, self.chosen.overshoot) if self.chosen.rewarm else None
        return Transition(f"switch at epoch {epoch} ({self.core.reason})", schedule)

    def param_groups(self, model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
        return self.core.param_groups(weight_decay)

    def on_gradients(self, model: nn.Module) -> None:
        self.core.before_step()

    def on_fit_end(self, context: Context) -> dict[str, Any]:
        core = self.core
        found = {
            "k": core.k,
            "switch_epoch": core.switch_epoch,
            "switch_reason": core.reason or "never",
            "ranks": core.final_ranks(),
            "kept_dense": core.kept_dense,
        }
        if self.chosen.rank_floor and core.switched:
            found["on_floor"] = [name for name in found["ranks"] if name in core.on_floor]
        if core.reason == "declined":
            found["kept_dense"] = core.kept_dense
        return found if core.profile is None else found | {"profile": core.profile}

    def state_dict(self) -> dict[str, Any]:
        return self.core.state_dict()

    def load_state_dict(self, context: Context, state: dict[str, Any]) -> None:
        self._build(context, state=state)

    def _build(self, context: Context, **earlier: dict[str, Any] | None) -> None:
        inputs = context.example_batch().inputs
        self.core = Cuttlefish(
            context.model, inputs, epochs=context.recipe.epochs, settings=self.chosen,
            autocast=context.autocast, cost_model=context.deterministic, broadcast=context.broadcast,
            section=context.section, **earlier,
        )  # fmt: skip
