"""SI&FD (Khodak et al., ICLR 2021): low-rank training with spectral initialisation and Frobenius decay.

Every convolution but the first becomes a 1×k one to r channels and a k×1 one from them: the truncated SVD of
its random weight as the matrix M[o·k1 + a, i·k2 + b] = W[o, i, a, b]. Classifier and shortcuts are unchanged.
"""

from collections.abc import Mapping
from typing import Any

from torch import Size, Tensor, nn

from baselines.si_fd.settings import Settings
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.decay import FrobeniusDecay
from cuttlefish.lowrank.matrix import matrix_shape
from cuttlefish.lowrank.surgery import factorize, find_layers
from cuttlefish.lowrank.trace import trace
from cuttlefish.methods.base import Context
from cuttlefish.methods.sized import SizedMethod
from cuttlefish.methods.target import find_fraction


def factorized_convs(model: nn.Module, example: Tensor) -> dict[str, Size]:
    """Return the weight shapes of the replaced convolutions: all but the first executed and the shortcuts."""
    convs = [layer for layer in trace(model, example) if isinstance(layer.module, nn.Conv2d)]
    found = find_layers(model)
    shapes = {
        layer.name: layer.module.weight.shape
        for layer in convs[1:]
        if not layer.shortcut and layer.name in found.layers
    }
    if not shapes:
        why = next((f" ({name}: {reason})" for name, reason in found.refused.items()), "")
        raise CuttlefishError(f"this model has no convolution to factorize behind its first one{why}")
    return shapes


def spatial_rank(shape: Size, rho: float) -> int:
    """Return r = round(ρ·c_out·k1), half to even, in [1, min(c_out·k1, c_in·k2)]: more would stay zero."""
    rows, columns = matrix_shape(shape, "spatial")
    return min(max(1, round(rho * rows)), rows, columns)


def saved_parameters(shapes: Mapping[str, Size], rho: float) -> int:
    """Return c_out·c_in·k1·k2 − r·(k1·c_out + k2·c_in), summed over the layers; negative past break-even."""
    return sum(
        shape.numel() - spatial_rank(shape, rho) * sum(matrix_shape(shape, "spatial"))
        for shape in shapes.values()
    )


class SpectralFrobenius(SizedMethod):
    """Single-phase method; the network is factorized before its first step."""

    name = "si_fd"
    no_fork = "factorizes the initial weights"
    Settings = Settings
    ranks: dict[str, int]
    rho: float

    def prepare(self, context: Context) -> None:
        super().prepare(context)
        inputs = context.example_batch().inputs
        shapes, full = factorized_convs(context.model, inputs), context.counts_full["params"]

        def size(rho: float) -> int:
            return full - saved_parameters(shapes, rho)

        self.check_reachable(size(0.0), size(1.0))
        self.rho = self.settings.rho if self.target is None else find_fraction(size, self.target.params)
        self.ranks = {name: spatial_rank(shape, self.rho) for name, shape in shapes.items()}

    def on_fit_start(self, context: Context) -> None:
        with context.section("switch"):
            self._factorize(context.model, initialise=True)

    def on_fit_end(self, context: Context) -> dict[str, Any]:
        found = {"ranks": self.ranks, "switch_epoch": 0, "switch_reason": "fixed", "k": 1, "rho": self.rho}
        return self.with_target(found, sum(parameter.numel() for parameter in context.model.parameters()))

    def state_dict(self) -> dict[str, Any]:
        return {"ranks": self.ranks, "rho": self.rho, "switch_epoch": 0} | super().state_dict()

    def load_state_dict(self, context: Context, state: dict[str, Any]) -> None:
        super().load_state_dict(context, state)
        self.ranks, self.rho = dict(state["ranks"]), state["rho"]
        self._factorize(context.model, initialise=False)

    def _factorize(self, model: nn.Module, initialise: bool) -> None:
        factorize(model, self.ranks, scheme="spatial", keep_dense=False, initialise=initialise)
        if self.settings.frobenius_decay:
            self.decay = FrobeniusDecay(model, self.settings.frobenius_decay)
