"""Cuttlefish for any training loop: find K, watch the ranks, factorize when they settle (Algorithm 1)."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

from torch import Tensor, nn
from torch.optim import Optimizer

from cuttlefish.auto.decisions import Decisions
from cuttlefish.auto.distributed import from_first_process
from cuttlefish.auto.show import plot_ranks, report_text
from cuttlefish.auto.state import checked_state, chosen_settings
from cuttlefish.auto.switch import EpochReport, Example
from cuttlefish.auto.watch import Watch
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.settings import Settings
from cuttlefish.lowrank.surgery import require_bare
from cuttlefish.lowrank.trace import Batch, Forward


class Cuttlefish(Decisions):
    """Automatic low-rank training of `model`.

        cf = Cuttlefish(model, images, epochs=90)
        for epoch in range(90):
            for …:
                loss.backward(); cf.before_step(); optimizer.step()
            if cf.epoch_end():
                cf.optimizer(optimizer)

    A loop without epochs gives `interval` and calls `step_end()` after each optimizer step instead; so many
    steps are then what is called an epoch here and in the settings.

    Args:
        model: A plain module on its device, not wrapped by DDP or torch.compile; it is changed in place.
        batch: One training batch of inputs, for the profile and the layers' shapes: a tensor (B × …), a tuple
            of inputs by position or a mapping of them by name. Optional beside a `state` that knows K.
        epochs: Length of the run, which the scale-free stability preset needs.
        interval: Optimizer steps an epoch, for `step_end`.
        settings: The knobs. Single knobs may be given as keywords instead.
        optimizer: One that shall follow the switch by itself, as by the method of that name.
        forward: How to call the model on a batch; model(x), model(*x) or model(**x) by default.
        measure: A rank measure of one's own, a function of an m × n matrix (see `RankTracker`).
        autocast: The precision of the profile's timed passes, as a context manager.
        cost_model: Decide K without a clock.
        profile: A profile measured before, as plain containers.
        state: That of an interrupted run (`state_dict`), to go on from. `model` is then a fresh full-rank one
            and gets the architecture that the state implies; the settings are the state's unless the same are
            given.
        broadcast: Returns the first process's value on every process, for all that is measured; through
            torch.distributed by default.
        section: Names the section to which a running timer books what is inside.
        guard: Watch the loop for mistakes (`Watch`), and compare the outputs before and after the switch.
        **knobs: Fields of `Settings`.

    Attributes:
        k, layers: K, and the layers to factorize. shortcuts: the 1×1 convolutions beside the main path.
        profile: The stack profile, if one was measured.
        switch_epoch: E once the model is factorized, else None.
        reason: Why the model was factorized, or will not be (`declined`, `never`); None while that is open.
        ranks: The rank found for each layer at the switch.
        on_floor: The layers whose rank would be lower without `rank_floor`.
        kept_dense: Layer → why it stays dense.
        tracker: The ranks over the epochs.

    Raises:
        CuttlefishError: The model, the batch, a knob or the state does not fit. Nothing is changed then.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Batch | None = None,
        *,
        epochs: int | None = None,
        interval: int | None = None,
        settings: Settings | None = None,
        optimizer: Optimizer | None = None,
        forward: Forward | None = None,
        measure: Callable[[Tensor], float] | None = None,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
        cost_model: bool = False,
        profile: dict[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
        broadcast: Callable[[Any], Any] = from_first_process,
        section: Callable[[str], AbstractContextManager[Any]] = lambda name: nullcontext(),
        guard: bool = True,
        **knobs: Any,
    ):
        state = checked_state(state)
        require_bare(model)
        super().__init__(model, chosen_settings(settings, knobs, state.get("settings")), forward)
        self.broadcast, self.section = broadcast, section
        self.epochs = state.get("epochs") if epochs is None else epochs
        self.interval = state.get("interval") if interval is None else interval
        self._check_lengths(batch, state)
        self._decide(batch, state, profile, measure, {"autocast": autocast, "cost_model": cost_model})
        if guard:
            self._watch = Watch(model)
            self._example = None if batch is None else Example(model, batch, forward)
        if optimizer is not None and not state.get("switch_epoch"):
            self.optimizer(optimizer)
        self._begin(state)

    @classmethod
    def resume(cls, model_fn: Callable[[], nn.Module], state: Mapping[str, Any], **options: Any) -> Self:
        """Go on from a state. `.model` has the architecture that the state implies; load its weights then.

        Args:
            model_fn: Builds the full-rank model.
            state: What `state_dict` has returned.
            **options: Arguments of `Cuttlefish`; the settings are the state's. With a `batch`, outputs are
                compared at a switch to come.
        """
        return cls(model_fn(), state=state, **options)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise CuttlefishError(
            "a Cuttlefish object watches one loop and cannot be copied or pickled: keep its state_dict() and "
            "the model's, and go on by Cuttlefish.resume()"
        )

    def epoch_end(self, epoch: int | None = None) -> EpochReport:
        """Call after each epoch. The report is true once: the model has just been factorized.

        The loop's optimizer has to follow then (`optimizer()`, or a new one from `param_groups()`), and DDP
        to wrap the model anew. A switch at which no layer would get smaller is none: `reason` is declined
        from then on, and `kept_dense` and the log say why.

        Update number e of the stability test sees the weights before epoch e:

            call                                  what it does
            the constructor                       update 0, on the initial weights (β)
            after epoch e, update e was false     update e + 1
            after epoch e, update e was true      update e + 1 for the record, new ranks, switch: E = e + 1

        Args:
            epoch: The number e of the epoch that has just ended, counted from 0; by default one after the
                last call's. A loop that resumed without this object's state has to give it.

        Raises:
            CuttlefishError: A weight holds NaN or infinite values; the ranks have not settled in time under
                on_never=error; the call comes in inference mode, twice for one epoch, or behind the last
                one while the switch is undecided.
        """
        if self.interval is not None:
            raise CuttlefishError("interval= was given: call step_end() after each step, not epoch_end().")
        return self._end(self._ended + 1 if epoch is None else epoch + 1)

    def step_end(self) -> EpochReport:
        """Call after each optimizer step of a loop without epochs; every `interval` calls are an epoch's end.

        The report is true once, as that of `epoch_end` is, and its errors are the same.
        """
        if self.interval is None:
            raise CuttlefishError("step_end() needs to know how many steps an interval has: give interval=.")
        self.steps += 1
        if self.steps % self.interval:
            return EpochReport(False, self.epoch, self.reason)
        return self._end(self._ended + 1)

    def report(self) -> str:
        """Return a table of all layers: ranks so far, and what becomes of each and why."""
        return report_text(self)

    def plot(self, axes: Any = None) -> Any:
        """Draw the layers' ranks over the epochs (needs matplotlib); return the axes."""
        return plot_ranks(self, axes)
