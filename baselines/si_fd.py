"""SI&FD (Khodak et al., ICLR 2021): low-rank from the first step on, by spectral initialisation, with
Frobenius decay.

Every convolution but the first becomes a 1×k one to r channels and a k×1 one out of them: the truncated SVD
of its random weight as the matrix M[o·k1 + a, i·k2 + b] = W[o, i, a, b]. The classifier and the shortcuts
stay as they are.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from torch import Size, Tensor, nn

from cuttlefish.errors import CuttlefishError
from cuttlefish.limits import Checked, Within
from cuttlefish.lowrank.decay import FrobeniusDecay, decay_groups
from cuttlefish.lowrank.matrix import matrix_shape
from cuttlefish.lowrank.surgery import factorize, find_layers
from cuttlefish.lowrank.trace import trace
from cuttlefish.methods.base import Context, Method
from cuttlefish.methods.target import (
    Match,
    Target,
    TargetSize,
    one_size,
    resolve_target,
    target_from_state,
    target_state,
)

TOLERANCE = 1e-6


def factorized_convs(model: nn.Module, example: Tensor) -> dict[str, Size]:
    """Weight shapes of the convolutions that are replaced: all but the first executed and the shortcuts.
    Refuses a model without."""
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
    """r = round(ρ·c_out·k1), half to even as Python rounds, in [1, min(c_out·k1, c_in·k2)]: more would stay
    zero for ever."""
    rows, columns = matrix_shape(shape, "spatial")
    return min(max(1, round(rho * rows)), rows, columns)


def saved_parameters(shapes: Mapping[str, Size], rho: float) -> int:
    """Dense minus factorized: c_out·c_in·k1·k2 − r·(k1·c_out + k2·c_in), summed over the layers; negative
    beyond break-even."""
    return sum(
        shape.numel() - spatial_rank(shape, rho) * sum(matrix_shape(shape, "spatial"))
        for shape in shapes.values()
    )


def find_rho(size: Callable[[float], int], target: int) -> float:
    """ρ in [0, 1] whose `size` (non-decreasing) comes nearest to the target, by bisection.

    Stops when the interval or the error, relative to the target, is below 1e-6, and returns the visited ρ of
    the smallest error, the earlier of equals.
    """
    low, high, best, smallest = 0.0, 1.0, 1.0, float("inf")
    while high - low >= TOLERANCE and smallest >= TOLERANCE:
        middle = (low + high) / 2
        error = size(middle) / target - 1
        if abs(error) < smallest:
            best, smallest = middle, abs(error)
        low, high = (middle, high) if error < 0 else (low, middle)
    return best


@dataclass(frozen=True)
class Settings(Checked):
    """rho: ρ, the rank as a fraction of c_out·k1. target_params, match: a size instead of ρ, for which ρ is
    then found.

    frobenius_decay: λ of the factors; 0 is ordinary weight decay. decay_all: L2 on norms and biases too, as
    the original does.
    """

    rho: Annotated[float, Within(0, 1, "(]")] = 0.08
    target_params: TargetSize = None
    match: Match = None
    frobenius_decay: Annotated[float, Within(0, 1000)] = 1e-4
    decay_all: bool = False

    def contradictions(self) -> Iterator[str]:
        yield from one_size(self)  # rho is given for some networks and not read beside a size


class SpectralFrobenius(Method):
    """One phase; the network is factorized before its first step."""

    name = "si_fd"
    no_fork = "factorizes the initial weights"
    Settings = Settings
    decay: FrobeniusDecay | None = None
    ranks: dict[str, int]
    rho: float
    target: Target | None = None

    def prepare(self, context: Context) -> None:
        images, _ = context.example_batch()
        shapes = factorized_convs(context.model, images)
        self.target = resolve_target(self.settings, context)
        self.rho = (
            self.settings.rho if self.target is None else self._matched(shapes, context.counts_full["params"])
        )
        self.ranks = {name: spatial_rank(shape, self.rho) for name, shape in shapes.items()}

    def on_fit_start(self, context: Context) -> None:
        with context.section("switch"):
            self._factorize(context.model, initialise=True)

    def param_groups(self, model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
        exempt = self.decay.parameters() if self.decay is not None else set()
        if not self.settings.decay_all:
            return decay_groups(model, weight_decay, exempt)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        decayed = {
            "params": [parameter for parameter in trained if parameter not in exempt],
            "weight_decay": weight_decay,
        }
        free = {"params": [parameter for parameter in trained if parameter in exempt], "weight_decay": 0.0}
        return [group for group in (decayed, free) if group["params"]]

    def on_gradients(self, model: nn.Module) -> None:
        if self.decay is not None:
            self.decay.add_gradients()

    def on_fit_end(self, context: Context) -> dict[str, Any]:
        found = {"ranks": self.ranks, "switch_epoch": 0, "switch_reason": "fixed", "k": 1, "rho": self.rho}
        achieved = sum(parameter.numel() for parameter in context.model.parameters())
        return found if self.target is None else found | {"target": self.target.report(achieved)}

    def state_dict(self) -> dict[str, Any]:
        return {"ranks": self.ranks, "rho": self.rho, "switch_epoch": 0} | target_state(self.target)

    def load_state_dict(self, context: Context, state: dict[str, Any]) -> None:
        self.ranks, self.rho, self.target = (
            dict(state["ranks"]),
            state["rho"],
            target_from_state(state) or self.target,
        )
        self._factorize(context.model, initialise=False)

    def _factorize(self, model: nn.Module, initialise: bool) -> None:
        factorize(model, self.ranks, scheme="spatial", keep_dense=False, initialise=initialise)
        if self.settings.frobenius_decay:
            self.decay = FrobeniusDecay(model, self.settings.frobenius_decay)

    def _matched(self, shapes: Mapping[str, Size], full: int) -> float:
        """ρ for the target. Refuses one outside the reachable sizes, rank 1 everywhere to full rank
        everywhere."""

        def size(rho: float) -> int:
            return full - saved_parameters(shapes, rho)

        least, most = size(0.0), size(1.0)
        if not least <= self.target.params <= most:
            nearest = least if self.target.params < least else most
            raise CuttlefishError(
                f"{self.target.source} asks for {self.target.params:,} parameters, but spatial factors of this model have "
                f"{least:,} to {most:,}: the nearest reachable size is {nearest:,}"
            )
        return find_rho(size, self.target.params)
