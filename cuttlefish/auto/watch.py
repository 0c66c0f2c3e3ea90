"""Watches the optimizers' steps, so that no loop trains what the model no longer holds, or forgets a call.

torch calls a hook before every step of every optimizer. What is certainly wrong raises a CuttlefishError
before that step; what is likely wrong is logged once as a warning.
"""

import logging
import weakref
from dataclasses import dataclass
from functools import cache

from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from cuttlefish.auto.follow.leftovers import leftovers
from cuttlefish.auto.switch import Replaced
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.decay import FrobeniusDecay

logger = logging.getLogger("cuttlefish")


@dataclass
class Tally:
    """Optimizer steps on the model's parameters since the last epoch's end, and in all; epochs that ended."""

    steps: int = 0
    total: int = 0
    epochs: int = 0


class Watch:
    """What a loop does with one model."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.tally = Tally()
        self.seen: weakref.WeakKeyDictionary[Optimizer, tuple[str, weakref.ref[nn.Parameter]]]
        self.seen = weakref.WeakKeyDictionary()
        self.foreign: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self.decay: FrobeniusDecay | None = None
        self.replaced: list[Replaced] = []
        self.followed: list[nn.Module] = []
        self._calls, self._ever_called, self._due = 0, False, False
        self._gradient: weakref.ref | None = None
        self._told: set[str] = set()
        self._looked_for_leftovers = True
        _listen(self)

    def epoch_ended(self, interval: int | None = None, passed: int = 1) -> None:
        """Warn of an epoch without a step where there were some, of several at once, of micro-batches."""
        if self.tally.total and not self.tally.steps:
            self._warn("epoch_end() was called again without an optimizer step since; call it once an epoch")
        elif interval and 0 < 2 * self.tally.steps <= interval:
            self._warn(
                f"step_end() was called {interval} times for {self.tally.steps} optimizer steps: call it "
                "once a step, after the last micro-batch"
            )
        if passed > 1:
            self._warn(f"epoch_end() was told of {passed} epochs at once: call it after each, counted from 0")
        self._look_for_leftovers()
        self.tally.steps, self.tally.epochs = 0, self.tally.epochs + 1

    def switched(
        self, replaced: list[Replaced], decay: FrobeniusDecay | None, followed: list[nn.Module]
    ) -> None:
        """Look at all optimizers anew: the model has other parameters now."""
        self.replaced, self.decay, self.followed = replaced, decay, followed
        self._looked_for_leftovers = False
        self.tally.epochs += 1  # it is low-rank, whatever calls come
        self.seen.clear()
        self.foreign.clear()

    def before_step(self) -> None:
        """Apply Frobenius decay, at the step itself while it is unknown which optimizer that is."""
        if self.decay is None:
            return
        self._calls += 1
        self._ever_called = True
        if self._same_gradient(self.decay) and self._calls > 1:
            self._warn(
                f"before_step() was called {self._calls} times before one optimizer step: Frobenius decay "
                "was added each time; call it once a step, after the last micro-batch"
            )
        # Decay is coupled under SGD only. If no step was seen since the last call, torch's hooks see none.
        if self.decay.attached or self._due:
            self._due = False
            self.decay.add_gradients()
        else:
            self._due = True

    def on_step(self, optimizer: Optimizer, closure: bool = False) -> None:
        """Called before each step of any optimizer; given a closure, it makes the gradients only then."""
        if optimizer in self.foreign or (optimizer not in self.seen and not self._first_sight(optimizer)):
            return
        self.tally.steps, self.tally.total = self.tally.steps + 1, self.tally.total + 1
        name, parameter = self.seen[optimizer]
        if name and _parameter(self.model, name) is not parameter():
            raise CuttlefishError(
                f"the {type(optimizer).__name__} would update a tensor that the model no longer holds as "
                f"{name}: parameters were exchanged (load_state_dict(assign=True), or a layer set anew); "
                "make the optimizer again"
            )
        if self.decay is not None and self.decay.attached_to(optimizer):
            if not closure:
                self._decay_is_due(self.decay, optimizer)
            self._calls = 0

    def _first_sight(self, optimizer: Optimizer) -> bool:
        """Check an optimizer; return whether it holds parameters of the model."""
        held = {id(p): p for group in optimizer.param_groups for p in group["params"]}
        gone = [entry for entry in self.replaced if _alive_in(entry, held)]
        if gone:
            raise CuttlefishError(
                f"the {type(optimizer).__name__} still holds {len(gone)} parameters that the switch has "
                f"replaced ({gone[0].name} …) and would train nothing of the factors: give it to "
                "cf.optimizer(), or make a new one from cf.param_groups()"
            )
        mine = [(name, p) for name, p in self.model.named_parameters() if id(p) in held]
        if not mine:
            self.foreign.add(optimizer)
            return False
        self.seen[optimizer] = (mine[0][0], weakref.ref(mine[0][1]))
        if self.decay is not None:
            self.decay.attach(optimizer)
            self._decayed_twice(self.decay, optimizer)
        self._look_for_leftovers()
        return True

    def _decay_is_due(self, decay: FrobeniusDecay, optimizer: Optimizer) -> None:
        if self._due:
            self._due = False
            decay.add_gradients()
        elif not self._ever_called:
            raise CuttlefishError(
                f"Frobenius decay of {decay.coefficient} is on, but before_step() was not called before "
                "the optimizer's step: call it after backward, or set frobenius_decay=0"
            )
        elif not self._calls and not self._is_wrapped(optimizer):
            self._warn("an optimizer step came without before_step(): it had no Frobenius decay")

    def _is_wrapped(self, optimizer: Optimizer) -> bool:
        """Return whether another optimizer steps by this one (Lookahead, SAM): both have the same groups."""
        others = (other for other in self.seen if other is not optimizer)
        return any(other.param_groups is optimizer.param_groups for other in others)

    def _same_gradient(self, decay: FrobeniusDecay) -> bool:
        """Return whether gradients are still being summed up since the last call."""
        factor = next(iter(decay.parameters()), None)
        gradient = None if factor is None else factor.grad
        before, self._gradient = self._gradient, None if gradient is None else weakref.ref(gradient)
        return before is not None and gradient is not None and before() is gradient

    def _decayed_twice(self, decay: FrobeniusDecay, optimizer: Optimizer) -> None:
        factors = decay.parameters()
        for group in optimizer.param_groups:
            twice = [p for p in group["params"] if p in factors]
            if twice and group.get("weight_decay"):
                self._warn(
                    f"{len(twice)} factors are decayed twice: by Frobenius decay and by the "
                    f"{type(optimizer).__name__}'s weight_decay={group['weight_decay']}; take its groups "
                    "from cf.param_groups()"
                )

    def _look_for_leftovers(self) -> None:
        if not self._looked_for_leftovers:
            self._looked_for_leftovers = True
            for sentence in leftovers(self.replaced, self.followed):
                self._warn(sentence)

    def _warn(self, sentence: str) -> None:
        if sentence not in self._told:
            self._told.add(sentence)
            logger.warning("%s", sentence)


WATCHES: weakref.WeakSet[Watch] = weakref.WeakSet()


def _listen(watch: Watch) -> None:
    """Hook the watch up for as long as it lives; say at its end if the loop never told of an epoch."""
    _hook_up()
    WATCHES.add(watch)
    weakref.finalize(watch, _say_if_never, watch.tally)


@cache
def _hook_up() -> None:
    """Register one hook for all watches and for good: torch cannot lose one while it runs them."""
    register_optimizer_step_pre_hook(_before_step)


def _before_step(optimizer: Optimizer, words: tuple[object, ...], named: dict[str, object]) -> None:
    given = (*words[1:], *named.values())  # the first word is the optimizer again
    for watch in list(WATCHES):
        watch.on_step(optimizer, closure=any(value is not None for value in given))


def _say_if_never(tally: Tally) -> None:
    if tally.total and not tally.epochs:
        logger.warning(
            "the model took %d optimizer steps, but neither epoch_end() nor step_end() was ever called: it "
            "was trained at full rank",
            tally.total,
        )


def _alive_in(entry: Replaced, held: dict[int, nn.Parameter]) -> bool:
    old = entry.parameter()
    return old is not None and held.get(id(old)) is old


def _parameter(model: nn.Module, name: str) -> nn.Parameter | None:
    try:
        return model.get_parameter(name)
    except AttributeError:
        return None
