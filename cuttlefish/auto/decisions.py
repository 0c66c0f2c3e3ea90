"""What `Cuttlefish` decides and does: K at the start, E and R at the switch, or that nothing pays."""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from cuttlefish.auto.choice import Choice, choose_layers, saved_choice
from cuttlefish.auto.follow.followers import Followers
from cuttlefish.auto.moment import Moment, stability_test
from cuttlefish.auto.ranks import choose_ranks, few, useless, within_budget
from cuttlefish.auto.state import check_history
from cuttlefish.auto.switch import EpochReport, Example, switch
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.check import check_settings
from cuttlefish.lowrank.count import count_parameters
from cuttlefish.lowrank.decay import FrobeniusDecay
from cuttlefish.lowrank.find import find_layers, freeze, low_rank_layers
from cuttlefish.lowrank.layout import keep_plain
from cuttlefish.lowrank.path import main_path, why_apart
from cuttlefish.lowrank.profiling import profile_stacks
from cuttlefish.lowrank.rank import RankTracker
from cuttlefish.lowrank.settings import Settings
from cuttlefish.lowrank.stability import StabilityTest
from cuttlefish.lowrank.trace import Batch, Forward

logger = logging.getLogger("cuttlefish")


class Decisions(Followers):
    """The state of automatic low-rank training, and the steps from one state to the next."""

    epochs: int | None
    interval: int | None
    broadcast: Callable[[Any], Any]
    section: Callable[[str], AbstractContextManager[Any]]
    k: int
    shortcuts: list[str]
    profile: dict[str, Any] | None
    kept_dense: dict[str, str]
    tracker: RankTracker
    test: StabilityTest
    _choice: Choice
    _moment: Moment

    def __init__(self, model: nn.Module, settings: Settings, forward: Forward | None):
        settings.check()
        super().__init__(model, settings, forward)
        self.reason: str | None = None
        self.ranks: dict[str, int] = {}
        self.on_floor: list[str] = []
        self.steps = self._ended = 0
        self._example: Example | None = None

    @property
    def epoch(self) -> int:
        """Dense epochs so far."""
        return self._moment.epoch

    def final_ranks(self) -> dict[str, int]:
        """Return layer → rank of the layers that were really factorized."""
        factorized = low_rank_layers(self.model)
        return {name: rank for name, rank in self.ranks.items() if name in factorized}

    def state_dict(self) -> dict[str, Any]:
        """Return plain containers: everything that `state=` and `resume` need, beside the weights."""
        return {
            "settings": asdict(self.settings),
            "profile": self.profile,
            "epochs": self.epochs,
            "interval": self.interval,
            "steps": self.steps,
            "epoch": self.epoch,
            "k": self.k,
            "layers": self.layers,
            "spared": self._choice.spared,
            "shortcuts": self.shortcuts,
            "switch_epoch": self.switch_epoch,
            "reason": self.reason,
            "ranks": self.ranks,
            "on_floor": self.on_floor,
            "factorized": sorted(low_rank_layers(self.model)),
            "kept_dense": self.kept_dense,
            "metric": self.tracker.metric,
            "history": self.tracker.history,
            "first_ranks": self.tracker.first,
        }

    def _end(self, ended: int) -> EpochReport:
        self._check_call(ended)
        if self._watch is not None:
            self._watch.epoch_ended(self.interval, 1 if self.reason else ended - self._ended)
        self._ended = ended
        if self.switched or self.reason is not None:
            return EpochReport(False, self.epoch, self.reason)
        why = self._moment.advance(ended)
        if self._moment.over:
            self.reason = "never"
        return EpochReport(False, self.epoch, self.reason) if why is None else self._switch(why)

    def _switch(self, reason: str) -> EpochReport:
        chosen, shortcuts = self.settings, self.shortcuts
        found = choose_ranks(self.tracker, self.layers, shortcuts, chosen)
        self.ranks = within_budget(self.model, found, chosen)
        free = choose_ranks(self.tracker, self.layers, shortcuts, chosen, rank_floor=0.0)
        self.on_floor = [name for name, rank in self.ranks.items() if free[name] < rank]
        dense = useless(self.model, self.ranks, chosen)
        self.kept_dense |= dense
        if dense.keys() == self.ranks.keys():
            return self._decline()
        before = count_parameters(self.model).total
        self.switch_epoch, self.reason = self.epoch, reason
        with self.section("switch"):
            difference = self._factorize({name: r for name, r in self.ranks.items() if name not in dense})
        after = count_parameters(self.model).total
        self._example = None
        report = EpochReport(
            True, self.epoch, reason, self.final_ranks(), dict(self.kept_dense), before, after, difference
        )
        logger.info("%s", report)
        return report

    def _factorize(self, ranks: dict[str, int], *, initialise: bool = True) -> float | None:
        chosen = self.settings
        self._replaced, difference = switch(
            self.model, ranks, self.shortcuts, chosen, initialise=initialise, example=self._example
        )
        if chosen.frobenius_decay:
            spared = set() if chosen.decay_untracked else set(chosen.untracked)
            decayed = [name for name in low_rank_layers(self.model) if name not in spared]
            self.decay = FrobeniusDecay(self.model, chosen.frobenius_decay, layers=decayed)
        freeze(self.model, chosen.freeze)
        self._follow_switch()
        return difference

    def _decline(self) -> EpochReport:
        self.reason = "declined"
        told = few(self.kept_dense, self.ranks or None)
        logger.warning("Nothing is factorized and training goes on at full rank: %s", told)
        size = count_parameters(self.model).total
        return EpochReport(False, self.epoch, self.reason, {}, dict(self.kept_dense), size, size)

    def _decide(
        self,
        batch: Batch | None,
        state: Mapping[str, Any],
        profile: dict[str, Any] | None,
        measure: Callable[[Tensor], float] | None,
        timed: dict[str, Any],
    ) -> None:
        """Choose K and the layers, and make the test that finds E; the model is only looked at."""
        chosen, model = self.settings, self.model
        stability_test(chosen, self.epochs)
        self._choice = choice = self._choose(batch, state, profile or state.get("profile"), timed)
        self.k, self.layers, self.profile = choice.k, choice.layers, choice.profile
        self.shortcuts, self.kept_dense = choice.shortcuts, dict(choice.reasons)
        within_budget(model, dict.fromkeys(self.layers, 1), chosen)
        self._form = frozenset(batch) if isinstance(batch, Mapping) else type(batch)
        waited = [*self.layers, *(choice.spared if chosen.wait_for_dense else [])]
        self._moment = Moment(
            model, choice.watched, waited, chosen, self.epochs, measure, self.broadcast, self.section
        )
        self.tracker, self.test = self._moment.tracker, self._moment.test

    def _begin(self, state: Mapping[str, Any]) -> None:
        """Measure the first ranks, or go on from a state."""
        keep_plain(self.model)
        for name in find_layers(self.model).held & self.kept_dense.keys():
            logger.warning("%s stays dense: %s", name, self.kept_dense[name])
        if not self.layers:
            self._decline()
        if state:
            self._restore(state)
            return
        self._moment.start()
        if self.settings.switch_epoch == 0 and self.layers:
            self._switch("fixed")

    def _choose(
        self,
        batch: Batch | None,
        state: Mapping[str, Any],
        profile: dict[str, Any] | None,
        timed: dict[str, Any],
    ) -> Choice:
        if batch is None:
            return saved_choice(state)
        chosen, forward = self.settings, self.forward
        traced = main_path(self.model, batch, shortcuts=True, forward=forward)
        path = [layer for layer in traced if chosen.factorize_shortcuts or not layer.shortcut]
        check_settings(chosen, self.model, path, self.epochs)

        def measure() -> dict[str, Any]:
            measured = profile_stacks(
                self.model, batch, ratio=chosen.ratio, threshold=chosen.threshold,
                repeats=chosen.profile_repeats, backward=chosen.profile_backward, extra_bn=chosen.extra_bn,
                shortcuts=chosen.factorize_shortcuts, forward=forward, **timed,
            )  # fmt: skip
            return self.broadcast(measured.to_dict())

        with self.section("profiling"):
            choice = choose_layers(self.model, path, chosen, profile, measure)
        apart = why_apart(self.model, traced)
        reasons = {name: why for name, why in apart.items() if name not in choice.layers}
        return replace(choice, reasons=reasons | choice.reasons)

    def _restore(self, state: Mapping[str, Any]) -> None:
        check_history(self.tracker, state)
        self._moment.restore(state)
        self._ended, self.steps = self.epoch, state.get("steps", 0)
        self.reason, self.switch_epoch = state.get("reason", self.reason), state.get("switch_epoch")
        self.ranks = dict(state.get("ranks", {}))
        self.on_floor = list(state.get("on_floor", []))
        self.kept_dense |= state.get("kept_dense", {})
        if self.switched:
            self._factorize({name: self.ranks[name] for name in state["factorized"]}, initialise=False)

    def _check_lengths(self, batch: Batch | None, state: Mapping[str, Any]) -> None:
        for name in ("epochs", "interval"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise CuttlefishError(f"{name}={value!r} must be a whole number of at least 1.")
        if batch is None and "layers" not in state:
            raise CuttlefishError(
                "no batch was given: the model's layers are found by running one batch of its inputs"
            )

    def _check_call(self, ended: int) -> None:
        if torch.is_inference_mode_enabled():
            raise CuttlefishError(
                "epoch_end() was called in inference mode, where no parameter can be made that training "
                "could use: call it outside torch.inference_mode()"
            )
        if self._watch is not None and ended <= self._ended:
            raise CuttlefishError(
                f"epoch_end({ended - 1}) was called, but epoch {self._ended - 1} has ended already: call it "
                "once an epoch, in order"
            )
        if self.epochs is not None and ended > self.epochs and self.reason is None:
            raise CuttlefishError(
                f"epoch_end() was called for epoch {ended - 1}, behind the last of the run's {self.epochs} "
                "epochs: give the run's real length as epochs="
            )
