"""To what L2 decay applies, and Frobenius decay, that of a product U·Vᵀ instead of its factors."""

from collections.abc import Iterable, Set
from typing import Any

import torch
from torch import Tensor, nn

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.find import low_rank_layers, nearest
from cuttlefish.lowrank.layers import LowRankLayer


def decay_groups(
    model: nn.Module, weight_decay: float, without_decay: Set[nn.Parameter] = frozenset()
) -> list[dict[str, Any]]:
    """Return two optimizer groups: decayed (two or more dimensions, not in `without_decay`) and the rest."""
    decayed, free = [], []
    for parameter in model.parameters():
        if parameter.requires_grad:
            (decayed if parameter.ndim >= 2 and parameter not in without_decay else free).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


class FrobeniusDecay:
    """The penalty (λ/2)·‖U·Vᵀ‖_F² of each low-rank layer with the factors U and Vᵀ (paper, section 4.1).

    The factors' ordinary weight decay must be off: exempt `parameters()`. Call `add_gradients()` once a step,
    after backward (and unscaling, and the last micro-batch) and before the optimizer's step, so that it
    passes through the momentum as ordinary decay does. With a coefficient of 0 it does nothing at all.

    Args:
        model: The model after `factorize`; the layers are those that it has at construction.
        coefficient: λ, as an optimizer's weight_decay.
        layers: Dotted names to which it is limited; all low-rank layers by default.

    Raises:
        CuttlefishError: The coefficient is negative or infinite, or a layer is dense or has an extra BN.
    """

    def __init__(self, model: nn.Module, coefficient: float, layers: Iterable[str] | None = None):
        if not 0 <= coefficient < float("inf"):
            raise CuttlefishError(
                f"The coefficient of Frobenius decay is {coefficient}; "
                "it must be a finite number that is not negative."
            )
        self.coefficient = coefficient
        self.layers = _chosen(low_rank_layers(model), layers)

    @torch.no_grad()
    def add_gradients(self) -> None:
        """Add λ·U(VᵀV) and λ·(UᵀU)Vᵀ to the factors' gradients, in place; a missing gradient counts as zero.

        No m × n product is made.
        """
        if self.coefficient == 0:
            return
        for layer in self.layers.values():
            U, Vt = layer.factors()
            second, first = layer.shaped(U @ (Vt @ Vt.T), (U.T @ U) @ Vt)
            self._add(layer.second.weight, second)
            self._add(layer.first.weight, first)

    def penalty(self) -> Tensor:
        """Return the sum of the layers' (λ/2)·‖U·Vᵀ‖_F² = (λ/2)·tr(UᵀU·VᵀV), a differentiable scalar."""
        factors = [layer.factors() for layer in self.layers.values()]
        squares = [((U.T @ U) * (Vt @ Vt.T)).sum() for U, Vt in factors]
        return self.coefficient / 2 * sum(squares, start=torch.zeros((), device="cpu"))

    def parameters(self) -> set[nn.Parameter]:
        """Return the decayed factors."""
        return {factor.weight for layer in self.layers.values() for factor in (layer.first, layer.second)}

    def _add(self, parameter: nn.Parameter, gradient: Tensor) -> None:
        if not parameter.requires_grad:
            return
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad.add_(gradient, alpha=self.coefficient)


def _chosen(available: dict[str, LowRankLayer], names: Iterable[str] | None) -> dict[str, LowRankLayer]:
    names = list(available) if names is None else list(names)
    for name in names:
        if name not in available:
            raise CuttlefishError(
                f"Frobenius decay was asked for {name!r}, which is no low-rank layer"
                f"{nearest(name, available)}."
            )
        if available[name].bn is not None:
            raise CuttlefishError(
                f"Layer {name!r} has an extra BN between its factors, which excludes Frobenius decay; "
                "use one of them."
            )
    return {name: available[name] for name in names}
