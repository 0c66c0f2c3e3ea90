"""Cuttlefish for anyone's training loop: find K, watch the ranks, factorize when they settle (paper, algorithm 1)."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from math import floor
from typing import Any

from torch import Tensor, nn

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.decay import FrobeniusDecay, decay_groups
from cuttlefish.lowrank.layout import keep_plain
from cuttlefish.lowrank.profiling import candidates, main_path, profile_stacks
from cuttlefish.lowrank.rank import RankTracker, clamp_rank, full_rank
from cuttlefish.lowrank.settings import Settings
from cuttlefish.lowrank.stability import StabilityTest
from cuttlefish.lowrank.surgery import factorize, low_rank_layers

logger = logging.getLogger("cuttlefish")


class Cuttlefish:
    """Automatic low-rank training of `model`, a plain module (not wrapped by DDP, not torch.compile's copy).

        cf = Cuttlefish(model, images, epochs=90)
        for epoch in range(90):
            for …:
                loss.backward(); cf.before_step(); optimizer.step()
            if cf.epoch_end():
                optimizer = SGD(cf.param_groups(weight_decay=1e-4), lr)

    batch: one training batch of inputs, for the profile and the layers' shapes. epochs: length of the run, for the scale-free
    stability preset. Further keywords are `Settings`. cost_model: decide K without a clock. profile: one measured before.
    state: that of an interrupted run (`state_dict`), to go on from; `model` is then a fresh full-rank one and gets the
    architecture that the state implies. agree: maps what this process measured to what all use (DDP); part: names the part
    to which a running clock books what is inside. Raises CuttlefishError on bad input.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Tensor,
        *,
        epochs: int | None = None,
        settings: Settings | None = None,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
        cost_model: bool = False,
        profile: dict[str, Any] | None = None,
        state: dict[str, Any] | None = None,
        agree: Callable[[Any], Any] = lambda value: value,
        part: Callable[[str], AbstractContextManager[Any]] = lambda name: nullcontext(),
        **knobs: Any,
    ):
        self.settings = settings or Settings(**knobs)
        self.settings.check()
        self.model, self.epochs, self.agree, self.part = model, epochs, agree, part
        keep_plain(model)
        self.path = main_path(model, batch, shortcuts=self.settings.factorize_shortcuts)
        self.profile: dict[str, Any] | None = profile or (state or {}).get("profile")
        with part("profiling"):
            self.k, self.layers = self._choose_layers(batch, autocast, cost_model)
        self.switch_epoch: int | None = None
        self.reason = None if self.layers else "declined"
        self.ranks: dict[str, int] = {}
        self.decay: FrobeniusDecay | None = None
        self.epoch = 0
        self._settled = False
        self.tracker = RankTracker(model, self._watched())
        self.test = self._stability_test()
        if state is not None:
            self._restore(state)
        else:
            self._update()
            if self.settings.switch_epoch == 0 and self.layers:
                self._switch("fixed")

    @property
    def switched(self) -> bool:
        return self.switch_epoch is not None

    def epoch_end(self, epoch: int | None = None) -> bool:
        """Call after each epoch. True once: the model has just been factorized and needs a new optimizer.

        Update number e of the stability test sees the weights before epoch e:

            call                                  what it does
            the constructor                       update 0, on the initial weights (β)
            after epoch e, update e was false     update e + 1
            after epoch e, update e was true      update e + 1 for the record, new ranks, the switch: E = e + 1

        Args:
            epoch: The number e of the epoch that has just ended, counted from 0; by default one after the last call's.
                A loop that resumed without this object's state has to give it.

        Returns:
            Whether the model was factorized in this call. E, the number of dense epochs, is then `switch_epoch`.

        Raises:
            CuttlefishError: The ranks have not settled in time, under on_never=error.
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
        """Call after backward (reduced, unscaled) and before the optimizer's step: adds Frobenius decay's gradient."""
        if self.decay is not None:
            self.decay.add_gradients()

    def param_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Optimizer groups: L2 for matrices and kernels, none for 1-D parameters and for factors under Frobenius decay."""
        exempt = self.decay.parameters() if self.decay is not None else set()
        return decay_groups(self.model, weight_decay, exempt)

    def final_ranks(self) -> dict[str, int]:
        """Layer → rank of the layers that were really factorized."""
        return {name: self.ranks[name] for name in self.ranks if name in low_rank_layers(self.model)}

    def state_dict(self) -> dict[str, Any]:
        """Plain containers: everything that `state=` needs, beside the weights."""
        return {
            "profile": self.profile,
            "epoch": self.epoch,
            "switch_epoch": self.switch_epoch,
            "reason": self.reason,
            "ranks": self.ranks,
            "factorized": sorted(low_rank_layers(self.model)),
            "history": self.tracker.history,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        history = state.get("history", {})
        missing = self.tracker.history.keys() - history.keys()
        if missing:
            raise CuttlefishError(
                f"the state has no rank history of layer {min(missing)}: it must come from cuttlefish with the same K, or from "
                "full_rank with track_ranks=true"
            )
        self.tracker.history = {name: list(history[name]) for name in self.tracker.history}
        # What the test knows is a function of the history, so it is fed again rather than stored.
        for ranks in zip(*self.tracker.history.values(), strict=True):
            if not self._settled:
                self._decide(dict(zip(self.tracker.history, ranks, strict=True)))
        self.epoch = state.get("epoch", max(map(len, self.tracker.history.values()), default=1) - 1)
        self.reason, self.switch_epoch = state.get("reason", self.reason), state.get("switch_epoch")
        self.ranks = dict(state.get("ranks", {}))
        if self.switched:
            self._factorize(
                {name: self.ranks[name] for name in state["factorized"]}, keep_dense=False, initialise=False
            )

    def _choose_layers(self, batch: Tensor, autocast: Any, cost_model: bool) -> tuple[int, list[str]]:
        chosen = self.settings
        if chosen.k == "profile" and not chosen.always_profile and self._is_transformer():
            return 1, candidates(self.model, self.path, 1)
        if self.profile is None and (chosen.k == "profile" or chosen.always_profile):
            measured = profile_stacks(
                self.model, batch, ratio=chosen.ratio, threshold=chosen.threshold, repeats=chosen.profile_repeats,
                backward=chosen.profile_backward, extra_bn=chosen.extra_bn, shortcuts=chosen.factorize_shortcuts,
                autocast=autocast, cost_model=cost_model,
            )  # fmt: skip
            self.profile = self.agree(measured.to_dict())
        if chosen.k == "profile":
            return self.profile["k"], list(self.profile["layers"])
        k = chosen.paper_k if chosen.k == "paper" else chosen.k
        return k, candidates(self.model, self.path, k)

    def _is_transformer(self) -> bool:
        """Whether all that can be factorized is linear layers on tokens: those are factorized unprofiled (section 3.5)."""
        names = set(candidates(self.model, self.path))
        return all(
            isinstance(layer.module, nn.Linear) and len(layer.input_shape) > 2
            for layer in self.path
            if layer.name in names
        )

    def _watched(self) -> list[str]:
        wanted = set(self.layers)
        unknown = set(self.settings.untracked) - {layer.name for layer in self.path}
        if unknown:
            raise CuttlefishError(
                f"untracked names {min(unknown)!r}, which is no layer of this model's main path"
            )
        if not self.settings.track_ranks:
            return []
        if self.settings.track_dense:
            wanted = {layer.name for layer in self.path}
        return [layer.name for layer in self.path if layer.name in wanted]

    def _stability_test(self) -> StabilityTest:
        # A fixed E needs no rule and hence no run length.
        preset = self.settings.stability if self.settings.switch_epoch is None else "paper"
        options = self.settings.stability_options if self.settings.switch_epoch is None else {}
        return StabilityTest(preset, epochs=self.epochs, min_epoch=self.settings.min_epoch, **options)

    def _update(self, decide: bool = True) -> None:
        with self.part("ranks"):
            ranks = self.agree(self.tracker.update())
        for name, rank in ranks.items():
            self.tracker.history[name][-1] = rank
        if decide:
            self._decide(ranks)

    def _decide(self, ranks: dict[str, float]) -> None:
        waited = set(self.layers) - set(self.settings.untracked)
        self._settled = self.test.update({name: rank for name, rank in ranks.items() if name in waited})

    def _out_of_time(self) -> bool:
        """Whether to switch at the last epoch allowed although ranks have not settled."""
        action, limit = self.settings.on_never, self.settings.max_epoch
        if limit is None and action == "error" and self.epochs is not None:
            limit = self.epochs - 1
        if limit is None or self.epoch < limit:
            return False
        if action == "error":
            left = sorted(set(self.layers) - set(self.test.settled))
            raise CuttlefishError(
                f"ranks have not settled by epoch {limit} (on_never=error): {', '.join(left[:3])} still change"
            )
        if action == "full_rank":
            self.reason = "never"
        return action == "switch_at"

    def _switch(self, reason: str) -> bool:
        self.switch_epoch, self.reason = self.epoch, reason
        self.ranks = self._choose_ranks()
        with self.part("switch"):
            self._factorize(self.ranks, keep_dense=self.settings.keep_dense)
        return True

    def _choose_ranks(self) -> dict[str, int]:
        chosen = self.settings
        bounds = {"rank_floor": chosen.rank_floor, "round_to": chosen.round_to}
        full = {name: full_rank(self.model.get_submodule(name).weight) for name in self.layers}
        if chosen.ranks is not None:
            return {
                name: clamp_rank(chosen.ranks[name], full[name])
                for name in self.layers
                if name in chosen.ranks
            }
        if chosen.rank_ratio is not None:
            return {
                name: clamp_rank(floor(chosen.rank_ratio * rank), rank, **bounds)
                for name, rank in full.items()
            }
        scaled = self.tracker.scaled_ranks(floored=chosen.floored, **bounds)
        found = scaled if chosen.metric == "scaled" else self.tracker.stable_ranks(**bounds)
        return {name: found[name] for name in self.layers}

    def _factorize(self, ranks: dict[str, int], *, keep_dense: bool, initialise: bool = True) -> None:
        factorize(
            self.model,
            ranks,
            extra_bn=self.settings.extra_bn,
            scheme=self.settings.scheme,
            keep_dense=keep_dense,
            initialise=initialise,
        )
        if self.settings.frobenius_decay:
            spared = set() if self.settings.decay_untracked else set(self.settings.untracked)
            decayed = [name for name in low_rank_layers(self.model) if name not in spared]
            self.decay = FrobeniusDecay(self.model, self.settings.frobenius_decay, layers=decayed)
        # Let go of the dense layers: nothing that was replaced may stay in memory.
        self.path = []
