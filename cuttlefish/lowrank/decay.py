"""Frobenius decay: weight decay of a low-rank layer's product instead of its factors."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.find import low_rank_layers, nearest
from cuttlefish.lowrank.layers import LowRankLayer


class FrobeniusDecay:
    """The penalty (λ/2)·‖G·F‖_F² of each low-rank layer, G and F its second and first factor (the paper, section 4.1).

    The factors' ordinary weight decay must be off: exempt `parameters()`. Call `add_gradients()` once a step, after
    backward (and unscaling, and the last micro-batch) and before the optimizer's step, so that it passes through the
    momentum as ordinary decay does. With a coefficient of 0 it does nothing at all.

    coefficient: λ, as an optimizer's weight_decay. layers: dotted names to which it is limited; all low-rank layers by default.
    The layers are those of the model at construction: construct it after `factorize`.
    """

    def __init__(self, model: nn.Module, coefficient: float, layers: Iterable[str] | None = None):
        if not 0 <= coefficient < float("inf"):
            raise CuttlefishError(
                f"The coefficient of Frobenius decay is {coefficient}; it must be a finite number that is not negative."
            )
        self.coefficient = coefficient
        self.layers = _chosen(low_rank_layers(model), layers)

    @torch.no_grad()
    def add_gradients(self) -> None:
        """Add λ(GᵀG)F and λG(FFᵀ) to the factors' gradients, in place; a missing gradient counts as zero. No m × n product is made."""
        if self.coefficient == 0:
            return
        for layer in self.layers.values():
            G, F = layer.factors()
            second, first = layer.shaped(G @ (F @ F.T), (G.T @ G) @ F)
            self._add(layer.second.weight, second)
            self._add(layer.first.weight, first)

    def penalty(self) -> Tensor:
        """The sum of the layers' (λ/2)·‖G·F‖_F² = (λ/2)·tr(GᵀG·FFᵀ); a differentiable scalar."""
        products = (layer.factors() for layer in self.layers.values())
        return (
            self.coefficient
            / 2
            * sum((((G.T @ G) * (F @ F.T)).sum() for G, F in products), start=torch.zeros(()))
        )

    def parameters(self) -> set[nn.Parameter]:
        """The decayed factors."""
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
                f"Frobenius decay was asked for {name!r}, which is no low-rank layer{nearest(name, available)}."
            )
        if available[name].bn is not None:
            raise CuttlefishError(
                f"Layer {name!r} has an extra BN between its factors, which excludes Frobenius decay; use one of them."
            )
    return {name: available[name] for name in names}
