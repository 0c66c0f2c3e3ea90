"""The targets Δ and multipliers λ of LC's layers, and the penalty (μ/2)·‖w − (Δ + λ/μ)‖² of an L step."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from baselines.lc import c_step

Tensors = Mapping[str, Tensor]
"""Layer → its weight, or a tensor of that shape."""


class Penalty:
    """One Δ and one λ for each layer, in the shape and memory layout of its weight.

    It pulls from `begin` to `end`; before the first L step and after the last it does nothing.
    """

    def __init__(self) -> None:
        self.deltas: dict[str, Tensor] = {}
        self.multipliers: dict[str, Tensor] = {}
        self._pulled: tuple[list[Tensor], list[Tensor], float] | None = None

    def shifted(self, weights: Tensors, mu: float) -> dict[str, Tensor]:
        """Return each layer's input of the C step, w − λ/μ; λ is 0 before the first."""
        if not self.multipliers:
            self.multipliers = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        return {
            name: c_step.shifted(weight.detach(), self.multipliers[name], mu)
            for name, weight in weights.items()
        }

    def set_deltas(self, weights: Tensors, deltas: Tensors) -> None:
        self.deltas = {name: _like(weight, deltas[name]) for name, weight in weights.items()}

    def update_multipliers(self, weights: Tensors, mu: float) -> None:
        """Set λ := λ − μ(w − Δ)."""
        for name, weight in weights.items():
            before, delta = self.multipliers[name], self.deltas[name]
            self.multipliers[name] = c_step.next_multipliers(before, weight.detach(), delta, mu)

    def begin(self, weights: Tensors, mu: float) -> None:
        """Pull the weights towards Δ + λ/μ from here on."""
        shifts = [c_step.penalty_shift(self.deltas[name], self.multipliers[name], mu) for name in weights]
        self._pulled = list(weights.values()), shifts, mu

    def end(self) -> None:
        self._pulled = None

    @property
    def pulls(self) -> bool:
        return self._pulled is not None

    @torch.no_grad()
    def add_gradients(self) -> None:
        """Add μ(w − Δ) − λ to the weights' gradients."""
        if self._pulled is not None:
            weights, shifts, mu = self._pulled
            gradients = [weight.grad for weight in weights]
            torch._foreach_add_(gradients, weights, alpha=mu)
            torch._foreach_sub_(gradients, shifts)

    @contextmanager
    def at_deltas(self, weights: Tensors) -> Iterator[None]:
        """Set w := Δ inside; restore w bit by bit."""
        saved = {name: weight.detach().clone() for name, weight in weights.items()}
        try:
            _copy(weights, self.deltas)
            yield
        finally:
            _copy(weights, saved)

    def state_dict(self) -> dict[str, Any]:
        return {"deltas": self.deltas, "multipliers": self.multipliers}

    def load_state_dict(self, weights: Tensors, state: Mapping[str, Any]) -> None:
        """Restore a saved state; one without these entries has no Δ yet."""
        self.deltas, self.multipliers = (
            {name: _like(weight, state[key][name]) for name, weight in weights.items() if name in state[key]}
            if key in state
            else {}
            for key in ("deltas", "multipliers")
        )


def _like(weight: Tensor, values: Tensor) -> Tensor:
    return torch.empty_like(weight, requires_grad=False).copy_(values)


@torch.no_grad()
def _copy(weights: Tensors, values: Tensors) -> None:
    for name, weight in weights.items():
        weight.copy_(values[name])
