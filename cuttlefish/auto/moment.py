"""E: after which dense epoch the ranks have settled (section 3.4), or the run has no time left."""

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.rank import RankTracker
from cuttlefish.lowrank.settings import METRICS, Settings
from cuttlefish.lowrank.stability import StabilityTest, make_rule

logger = logging.getLogger("cuttlefish")


class Moment:
    """The ranks over the epochs and what they say about E.

    Args:
        model: The model whose layers are measured at each update.
        watched, waited: Names of the layers that are measured, and of those whose ranks must settle.
        settings, epochs: The knobs, and the length of the run if it is known.
        measure: A rank measure instead of the settings'.
        broadcast, section: As those of `Cuttlefish`.

    Attributes:
        epoch: Dense epochs so far.
        over: Whether the model stays dense for good: `never`.
    """

    def __init__(
        self,
        model: nn.Module,
        watched: Iterable[str],
        waited: Iterable[str],
        settings: Settings,
        epochs: int | None,
        measure: Callable[[Tensor], float] | None,
        broadcast: Callable[[Any], Any],
        section: Callable[[str], AbstractContextManager[Any]],
    ):
        self.settings, self.epochs, self.broadcast, self.section = settings, epochs, broadcast, section
        self.waited = set(waited) - set(settings.untracked)
        measured = measure or METRICS[settings.metric].measure
        self.tracker = RankTracker(
            model, watched, measure=measured, scheme=settings.scheme, beta=settings.beta
        )
        self.test = stability_test(settings, epochs)
        self.epoch = 0
        self.over = False
        self.settled = False

    def start(self) -> None:
        """Measure the initial weights."""
        self.update()
        self.tracker.first = self.broadcast(self.tracker.first)

    def update(self, decide: bool = True) -> None:
        """Measure the ranks before the next epoch."""
        with self.section("ranks"):
            ranks = self.broadcast(self.tracker.update())
        for name, rank in ranks.items():
            self.tracker.history[name][-1] = rank
        if decide:
            self._decide(ranks)

    def advance(self, ended: int) -> str | None:
        """Take in the weights after so many epochs; return why to switch now, or None."""
        self.epoch, was_settled = ended, self.settled
        self.update(decide=not was_settled)
        if self.epochs is not None and self.epoch >= self.epochs:
            self.over = True
            logger.warning(
                "the run's %d epochs are over and its ranks have not settled in time: the model stays at "
                "full rank; max_epoch= with on_never=switch_at would end the wait",
                self.epochs,
            )
            return None
        if self.settings.switch_epoch is not None:
            return "fixed" if self.epoch >= self.settings.switch_epoch else None
        if was_settled or (self.settled and self.test.rule.lag == 0):
            return self.test.reason
        return "at the maximum E" if self._out_of_time() else None

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that has been checked (`check_history`)."""
        history = state.get("history", {})
        self.tracker.history = {name: list(history[name]) for name in self.tracker.history}
        self.tracker.first = dict(state.get("first_ranks", {}))
        # What the test knows is a function of the history, so it is fed again rather than stored.
        for ranks in zip(*self.tracker.history.values(), strict=True):
            if not self.settled:
                self._decide(dict(zip(self.tracker.history, ranks, strict=True)))
        self.epoch = state.get("epoch", max(map(len, self.tracker.history.values()), default=1) - 1)

    def _decide(self, ranks: dict[str, float]) -> None:
        self.settled = self.test.update({name: rank for name, rank in ranks.items() if name in self.waited})

    def _out_of_time(self) -> bool:
        """Return whether to switch at the last epoch allowed although ranks have not settled."""
        action, limit = self.settings.on_never, self.settings.max_epoch
        if limit is None and action == "error" and self.epochs is not None:
            limit = self.epochs - 1
        if limit is None or self.epoch < limit:
            return False
        if action == "error":
            left = sorted(self.waited - set(self.test.settled))
            raise CuttlefishError(
                f"ranks have not settled by epoch {limit} (on_never=error): "
                f"{', '.join(left[:3])} still change"
            )
        self.over = action == "full_rank"
        return action == "switch_at"


def stability_test(settings: Settings, epochs: int | None) -> StabilityTest:
    """Return the settings' test. Raises CuttlefishError where its options or the run's length do not fit."""
    make_rule(settings.stability, settings.stability_options)
    if settings.switch_epoch is not None:  # a fixed E needs no rule and hence no run length
        return StabilityTest("paper")
    options = settings.stability_options
    return StabilityTest(settings.stability, epochs=epochs, min_epoch=settings.min_epoch, **options)
