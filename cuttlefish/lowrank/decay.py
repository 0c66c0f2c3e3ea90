"""To what L2 decay applies, and Frobenius decay, that of a product U·Vᵀ instead of its factors."""

from collections.abc import Iterable, Set
from typing import Any, cast
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.find import low_rank_layers, nearest
from cuttlefish.lowrank.layers import LowRankLayer


def decay_groups(
    model: nn.Module, weight_decay: float, without_decay: Set[nn.Parameter] = frozenset()
) -> list[dict[str, Any]]:
    """Return two optimizer groups: decayed (two or more dimensions, not exempt) and the rest.

    Exempt are the parameters in `without_decay`, and those that a model of timm names in `no_weight_decay()`:
    tokens and position embeddings.
    """
    tell: Any = getattr(model, "no_weight_decay", None)
    named = tell() if callable(tell) else ()
    decayed, free = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            exempt = parameter.ndim < 2 or parameter in without_decay or name in named
            (free if exempt else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


class FrobeniusDecay:
    """The penalty (λ/2)·‖U·Vᵀ‖_F² of each low-rank layer with the factors U and Vᵀ (paper, section 4.1).

    The factors' ordinary weight decay must be off: exempt `parameters()`. Call `add_gradients()` once a step,
    after backward (and unscaling, and the last micro-batch) and before the optimizer's step. Under SGD it
    passes through the momentum, as ordinary decay does; an optimizer that scales gradients (Adam, …) must be
    given to `attach()`, and the decay is then decoupled from them, as in AdamW. With a coefficient of 0 it
    does nothing at all.

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
        self._optimizers: WeakSet[Optimizer] = WeakSet()
        self._decoupled: dict[Tensor, dict[str, Any]] = {}

    def attach(self, optimizer: Optimizer) -> None:
        """Say which optimizer takes the steps: the decay is decoupled if it is not an SGD.

        Args:
            optimizer: The optimizer of all or some of the factors. Its groups' learning rates are read at
                each step.
        """
        mine, decoupled = self.parameters(), not _is_sgd(optimizer)
        for group in optimizer.param_groups:
            held = [parameter for parameter in group["params"] if parameter in mine]
            for parameter in held:
                self._decoupled.pop(parameter, None)
            if held:
                self._optimizers.add(optimizer)
            if decoupled:
                self._decoupled |= dict.fromkeys(held, group)

    @property
    def attached(self) -> bool:
        """Whether it is known which optimizer takes the steps."""
        return bool(self._optimizers)

    def attached_to(self, optimizer: Optimizer) -> bool:
        """Return whether this optimizer was attached and holds factors."""
        return optimizer in self._optimizers

    @torch.no_grad()
    def add_gradients(self) -> None:
        """Add λ·U(VᵀV) and λ·(UᵀU)Vᵀ to the factors' gradients, in place; a missing gradient counts as zero.

        Of factors in an attached optimizer that is no SGD, the learning rate times that is taken from the
        factors themselves instead. No m × n product is made.
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
        layers = self.layers.values()
        return {cast(nn.Parameter, part.weight) for layer in layers for part in (layer.first, layer.second)}

    def _add(self, parameter: Tensor, gradient: Tensor) -> None:
        if not parameter.requires_grad:
            return
        group = self._decoupled.get(parameter)
        if group is not None:
            parameter.sub_(gradient * (self.coefficient * group["lr"]))
            return
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad.add_(gradient, alpha=self.coefficient)


def _is_sgd(optimizer: Optimizer) -> bool:
    return any(kind.__name__.startswith("SGD") for kind in type(optimizer).__mro__)


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
