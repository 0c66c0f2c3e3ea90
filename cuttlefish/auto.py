"""Cuttlefish for any training loop: find K, watch the ranks, factorize when they settle (Algorithm 1)."""

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, fields
from math import floor
from typing import Any

from torch import Tensor, nn

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.decay import FrobeniusDecay, decay_groups
from cuttlefish.lowrank.find import find_layers, nearest
from cuttlefish.lowrank.layout import keep_plain
from cuttlefish.lowrank.matrix import matrix_shape
from cuttlefish.lowrank.misaligned import misaligned_ranks
from cuttlefish.lowrank.patterns import freeze
from cuttlefish.lowrank.profiling import candidates, is_transformer, main_path, profile_stacks, why_dense
from cuttlefish.lowrank.rank import RankTracker, clamp_rank
from cuttlefish.lowrank.settings import METRICS, Settings
from cuttlefish.lowrank.stability import StabilityTest, make_rule
from cuttlefish.lowrank.surgery import break_even, factorize, low_rank_layers, require_bare, saves_nothing
from cuttlefish.lowrank.trace import Batch, Forward

logger = logging.getLogger("cuttlefish")


class Cuttlefish:
    """Automatic low-rank training of `model`.

        cf = Cuttlefish(model, images, epochs=90)
        for epoch in range(90):
            for …:
                loss.backward(); cf.before_step(); optimizer.step()
            if cf.epoch_end():
                optimizer = SGD(cf.param_groups(weight_decay=1e-4), lr)

    Args:
        model: A plain module on its device, not wrapped by DDP or torch.compile; it is changed in place.
        batch: One training batch of inputs, for the profile and the layers' shapes: a tensor (B × …), a tuple
            of inputs by position or a mapping of them by name.
        epochs: Length of the run, which the scale-free stability preset needs.
        settings: The knobs. Single knobs may be given as keywords instead.
        forward: How to call the model on a batch; model(x), model(*x) or model(**x) by default.
        measure: A rank measure of one's own, a function of an m × n matrix (see `RankTracker`).
        autocast: The precision of the profile's timed passes, as a context manager.
        cost_model: Decide K without a clock.
        profile: A profile measured before, as plain containers.
        state: That of an interrupted run (`state_dict`), to go on from. `model` is then a fresh full-rank one
            and gets the architecture that the state implies; the settings are the state's unless the same are
            given.
        broadcast: Returns the first process's value on every process (DDP), for all that is measured.
        section: Names the section to which a running timer books what is inside.
        **knobs: Fields of `Settings`.

    Attributes:
        k, layers: K, and the layers to factorize.
        profile: The stack profile, if one was measured.
        switch_epoch: E once the model is factorized, else None.
        reason: Why the model was factorized, or will not be (`declined`, `never`); None while that is open.
        ranks: The rank found for each layer at the switch.
        on_floor: The layers whose rank would be lower without `rank_floor`.
        kept_dense: Executed layer → why it stays dense.

    Raises:
        CuttlefishError: The model, the batch, a knob or the state does not fit. Nothing is changed then.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        epochs: int | None = None,
        settings: Settings | None = None,
        forward: Forward | None = None,
        measure: Callable[[Tensor], float] | None = None,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
        cost_model: bool = False,
        profile: dict[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
        broadcast: Callable[[Any], Any] = lambda value: value,
        section: Callable[[str], AbstractContextManager[Any]] = lambda name: nullcontext(),
        **knobs: Any,
    ):
        self.settings = _chosen_settings(settings, knobs, (state or {}).get("settings"))
        self.settings.check()
        require_bare(model)
        self.model, self.epochs, self.broadcast, self.section = model, epochs, broadcast, section
        self.path = main_path(model, batch, shortcuts=self.settings.factorize_shortcuts, forward=forward)
        self.settings.check_model(model, self.path, epochs)
        self.profile: dict[str, Any] | None = profile or (state or {}).get("profile")
        self.test = self._stability_test()
        with section("profiling"):
            self.k, possible = self._choose_layers(
                batch, autocast=autocast, cost_model=cost_model, forward=forward
            )
        self.layers = [name for name in possible if not self.settings.leaves_dense(name)]
        self.dense = [name for name in possible if self.settings.leaves_dense(name)]
        keep_plain(model)
        self.switch_epoch: int | None = None
        self.reason: str | None = None
        self.ranks: dict[str, int] = {}
        self.on_floor: list[str] = []
        self.kept_dense = self._why_dense()
        self.decay: FrobeniusDecay | None = None
        self.epoch = 0
        self._settled = False
        measure = measure or METRICS[self.settings.metric].measure
        self.tracker = RankTracker(
            model, self._watched(), measure=measure, scheme=self.settings.scheme, beta=self.settings.beta
        )
        for name in find_layers(model).held & self.kept_dense.keys():
            logger.warning("%s stays dense: %s", name, self.kept_dense[name])
        if not self.layers:
            self._decline()
        if state is not None:
            self._restore(state)
        else:
            self._update()
            self.tracker.first = broadcast(self.tracker.first)
            if self.settings.switch_epoch == 0 and self.layers:
                self._switch("fixed")

    @property
    def switched(self) -> bool:
        return self.switch_epoch is not None

    def epoch_end(self, epoch: int | None = None) -> bool:
        """Call after each epoch. True once: the model has just been factorized and needs a new optimizer.

        A switch at which no layer would get smaller is none: the answer is False, `reason` is declined from
        then on, and `kept_dense` and the log say why.

        Update number e of the stability test sees the weights before epoch e:

            call                                  what it does
            the constructor                       update 0, on the initial weights (β)
            after epoch e, update e was false     update e + 1
            after epoch e, update e was true      update e + 1 for the record, new ranks, switch: E = e + 1

        Args:
            epoch: The number e of the epoch that has just ended, counted from 0; by default one after the
                last call's. A loop that resumed without this object's state has to give it.

        Returns:
            Whether the model was factorized in this call. E, the number of dense epochs, is `switch_epoch`.

        Raises:
            CuttlefishError: A weight holds NaN or infinite values, or the ranks have not settled in time
                under on_never=error.
        """
        if self.switched or self.reason is not None:
            return False
        self.epoch = self.epoch + 1 if epoch is None else epoch + 1
        was_settled = self._settled
        self._update(decide=not was_settled)
        if self.settings.switch_epoch is not None:
            return self.epoch == self.settings.switch_epoch and self._switch("fixed")
        if was_settled or (self._settled and self.test.rule.lag == 0):
            return self._switch(self.test.reason)
        return self._out_of_time() and self._switch("at the maximum E")

    def before_step(self) -> None:
        """Add Frobenius decay's gradient: after backward (reduced, unscaled), before the optimizer's step."""
        if self.decay is not None:
            self.decay.add_gradients()

    def param_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Return optimizer groups: L2 for matrices and kernels, but not for factors under Frobenius decay."""
        exempt = self.decay.parameters() if self.decay is not None else set()
        return decay_groups(self.model, weight_decay, exempt)

    def final_ranks(self) -> dict[str, int]:
        """Return layer → rank of the layers that were really factorized."""
        factorized = low_rank_layers(self.model)
        return {name: rank for name, rank in self.ranks.items() if name in factorized}

    def state_dict(self) -> dict[str, Any]:
        """Return plain containers: everything that `state=` needs, beside the weights."""
        return {
            "settings": asdict(self.settings),
            "profile": self.profile,
            "epoch": self.epoch,
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

    def _restore(self, state: Mapping[str, Any]) -> None:
        history = state.get("history", {})
        missing = self.tracker.history.keys() - history.keys()
        if missing:
            raise CuttlefishError(
                f"the state has no rank history of layer {min(missing)}: it must come from cuttlefish with "
                "the same K, or from full_rank with track_ranks=true"
            )
        metric = state.get("metric", "stable")
        if self.tracker.history and metric != self.tracker.metric:
            raise CuttlefishError(
                f"the state's rank history is of the metric {metric}, not {self.tracker.metric}: "
                "go on with the same one"
            )
        self.tracker.history = {name: list(history[name]) for name in self.tracker.history}
        self.tracker.first = dict(state.get("first_ranks", {}))
        # What the test knows is a function of the history, so it is fed again rather than stored.
        for ranks in zip(*self.tracker.history.values(), strict=True):
            if not self._settled:
                self._decide(dict(zip(self.tracker.history, ranks, strict=True)))
        self.epoch = state.get("epoch", max(map(len, self.tracker.history.values()), default=1) - 1)
        self.reason, self.switch_epoch = state.get("reason", self.reason), state.get("switch_epoch")
        self.ranks = dict(state.get("ranks", {}))
        self.on_floor = list(state.get("on_floor", []))
        self.kept_dense |= state.get("kept_dense", {})
        if self.switched:
            self._factorize({name: self.ranks[name] for name in state["factorized"]}, initialise=False)

    def _choose_layers(
        self, batch: Batch, *, autocast: Any, cost_model: bool, forward: Forward | None
    ) -> tuple[int, list[str]]:
        chosen = self.settings
        if chosen.k == "profile" and not chosen.always_profile:
            names = candidates(self.model, self.path, 1)
            if is_transformer(self.path, names):
                return 1, names
        if self.profile is None and (chosen.k == "profile" or chosen.always_profile):
            measured = profile_stacks(
                self.model, batch, ratio=chosen.ratio, threshold=chosen.threshold,
                repeats=chosen.profile_repeats, backward=chosen.profile_backward, extra_bn=chosen.extra_bn,
                shortcuts=chosen.factorize_shortcuts, autocast=autocast, cost_model=cost_model,
                forward=forward,
            )  # fmt: skip
            self.profile = self.broadcast(measured.to_dict())
        if chosen.k == "profile":
            return self.profile["k"], list(self.profile["layers"])
        k = chosen.paper_k if chosen.k == "paper" else chosen.k
        return k, candidates(self.model, self.path, k)

    def _why_dense(self) -> dict[str, str]:
        reasons = why_dense(self.model, self.path, self.layers, self.k)
        reasons |= dict.fromkeys(self.dense, "dense names it")
        stacks = self.profile.get("stacks", []) if self.profile and self.settings.k == "profile" else []
        for stack in stacks:
            if not stack["factorize"]:
                speedup = f"{stack['speedup']:.2f} times as fast at {self.profile['ratio']} of its rank"
                least = self.profile["threshold"]
                why = f"its stack {stack['name']} gets {speedup}, and {least} must be passed"
                reasons |= dict.fromkeys(stack["layers"], why)
        return reasons

    def _watched(self) -> list[str]:
        wanted = {*self.layers, *(self.dense if self.settings.wait_for_dense else ())}
        if not self.settings.track_ranks:
            return []
        if self.settings.track_dense:
            wanted = {layer.name for layer in self.path}
        return [layer.name for layer in self.path if layer.name in wanted]

    def _stability_test(self) -> StabilityTest:
        chosen = self.settings
        make_rule(chosen.stability, chosen.stability_options)
        if chosen.switch_epoch is not None:  # a fixed E needs no rule and hence no run length
            return StabilityTest("paper")
        options = chosen.stability_options
        return StabilityTest(chosen.stability, epochs=self.epochs, min_epoch=chosen.min_epoch, **options)

    def _update(self, decide: bool = True) -> None:
        with self.section("ranks"):
            ranks = self.broadcast(self.tracker.update())
        for name, rank in ranks.items():
            self.tracker.history[name][-1] = rank
        if decide:
            self._decide(ranks)

    def _decide(self, ranks: dict[str, float]) -> None:
        awaited = self.dense if self.settings.wait_for_dense else []
        waited = {*self.layers, *awaited} - set(self.settings.untracked)
        self._settled = self.test.update({name: rank for name, rank in ranks.items() if name in waited})

    def _out_of_time(self) -> bool:
        """Return whether to switch at the last epoch allowed although ranks have not settled."""
        action, limit = self.settings.on_never, self.settings.max_epoch
        if limit is None and action == "error" and self.epochs is not None:
            limit = self.epochs - 1
        if limit is None or self.epoch < limit:
            return False
        if action == "error":
            left = sorted(set(self.layers) - set(self.test.settled))
            raise CuttlefishError(
                f"ranks have not settled by epoch {limit} (on_never=error): "
                f"{', '.join(left[:3])} still change"
            )
        if action == "full_rank":
            self.reason = "never"
        return action == "switch_at"

    def _switch(self, reason: str) -> bool:
        self.ranks = self._choose_ranks(self.settings.rank_floor)
        free = self._choose_ranks(rank_floor=0.0)
        self.on_floor = [name for name, rank in self.ranks.items() if free[name] < rank]
        dense = {name: why for name in self.ranks if (why := self._why_useless(name))}
        self.kept_dense |= dense
        if dense.keys() == self.ranks.keys():
            return self._decline()
        self.switch_epoch, self.reason = self.epoch, reason
        with self.section("switch"):
            self._factorize({name: rank for name, rank in self.ranks.items() if name not in dense})
        return True

    def _decline(self) -> bool:
        self.reason = "declined"
        told = {name: why for name, why in self.kept_dense.items() if name in self.ranks or not self.ranks}
        some = "; ".join(f"{name}: {why}" for name, why in list(told.items())[:3])
        more = f"; and {len(told) - 3} more" if len(told) > 3 else ""
        logger.warning("Nothing is factorized and training goes on at full rank: %s%s", some, more)
        return False

    def _why_useless(self, name: str) -> str | None:
        """Return why a layer that was chosen stays dense at its rank."""
        layer, rank = self.model.get_submodule(name), self.ranks[name]
        if not layer.weight.any():
            return "its weight is still zero, so both factors would be zero and never learn"
        if self.settings.keep_dense and rank >= break_even(layer, self.settings.scheme):
            return saves_nothing(layer, rank, self.settings.scheme)
        return None

    def _choose_ranks(self, rank_floor: float) -> dict[str, int]:
        chosen = self.settings
        bounds = {"rank_floor": rank_floor, "round_to": chosen.round_to}
        if chosen.ranks is not None:
            return {name: chosen.ranks[name] for name in self.layers if name in chosen.ranks}
        if chosen.rank_ratio is not None:
            shapes = {name: self.model.get_submodule(name).weight.shape for name in self.layers}
            full = {name: min(matrix_shape(shape, chosen.scheme)) for name, shape in shapes.items()}
            return {
                name: clamp_rank(floor(chosen.rank_ratio * rank), rank, **bounds)
                for name, rank in full.items()
            }
        if chosen.misaligned:
            shortcuts = [layer.name for layer in self.path if layer.shortcut]
            return misaligned_ranks(self.tracker, self.layers, shortcuts, rank_floor=rank_floor)
        scaled = METRICS[chosen.metric].scaled
        found = (
            self.tracker.scaled_ranks(floored=chosen.floored, **bounds)
            if scaled
            else self.tracker.stable_ranks(**bounds)
        )
        return {name: found[name] for name in self.layers}

    def _factorize(self, ranks: dict[str, int], *, initialise: bool = True) -> None:
        chosen = self.settings
        plain = set() if chosen.shortcut_bn else {layer.name for layer in self.path if layer.shortcut}
        with_bn = {name: rank for name, rank in ranks.items() if chosen.extra_bn and name not in plain}
        without = {name: rank for name, rank in ranks.items() if name not in with_bn}
        options = {"first_bias": chosen.first_bias, "scheme": chosen.scheme, "initialise": initialise}
        for group in filter(None, (with_bn, without)):
            factorize(self.model, group, extra_bn=group is with_bn, keep_dense=False, **options)
        if self.settings.frobenius_decay:
            spared = set() if self.settings.decay_untracked else set(self.settings.untracked)
            decayed = [name for name in low_rank_layers(self.model) if name not in spared]
            self.decay = FrobeniusDecay(self.model, self.settings.frobenius_decay, layers=decayed)
        freeze(self.model, self.settings.freeze)
        self.path = []  # nothing that was replaced may stay in memory


def _chosen_settings(
    settings: Settings | None, knobs: Mapping[str, Any], saved: Mapping[str, Any] | None
) -> Settings:
    """Return the settings that are given, or those of the state; where both are, they must be the same."""
    known = [field.name for field in fields(Settings)]
    for name in knobs:
        if name not in known:
            raise CuttlefishError(f"Cuttlefish has no setting {name!r}{nearest(name, known)}.")
    if settings is not None and knobs:
        raise CuttlefishError(f"{min(knobs)} is given beside settings=: put it into the settings.")
    saved = {name: value for name, value in (saved or {}).items() if name in known}
    if settings is None and not knobs:
        return Settings(**saved)
    settings = settings or Settings(**knobs)
    for name, value in saved.items():
        mine = getattr(settings, name)
        if json.dumps(mine, sort_keys=True) != json.dumps(value, sort_keys=True) and mine != value:
            raise CuttlefishError(
                f"the state was made with {name}={value}, not {mine}: "
                "give the same settings, or none to take the state's"
            )
    return settings
