"""The switch: layers become low-rank, and a forward pass shows that the model now runs them."""

import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._pytree import tree_leaves, tree_map

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.find import low_rank_layers
from cuttlefish.lowrank.layers import LowRankLayer
from cuttlefish.lowrank.settings import Settings
from cuttlefish.lowrank.surgery import factorize
from cuttlefish.lowrank.trace import (
    Batch,
    Forward,
    call_model,
    eager,
    evaluating,
    first_samples,
    first_tensor,
)

logger = logging.getLogger("cuttlefish")


@dataclass(frozen=True)
class EpochReport:
    """What one call of `epoch_end` or `step_end` has done. It is true if the model was factorized in it.

    epoch: dense epochs so far, E at the switch. reason: why it switched, or why it never will; None while
    that is open. ranks: factorized layer → rank. refused: layer → why it stays dense. parameters_before,
    parameters_after: all the model's. difference: relative change of the model's output on two samples.
    """

    switched: bool
    epoch: int
    reason: str | None = None
    ranks: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    parameters_before: int | None = None
    parameters_after: int | None = None
    difference: float | None = None

    def __bool__(self) -> bool:
        return self.switched

    def __str__(self) -> str:
        if not self.switched:
            return f"no switch here, after {self.epoch} dense epochs" + (
                f" ({self.reason})" if self.reason else ""
            )
        before, after = self.parameters_before or 0, self.parameters_after or 1
        lines = [
            f"low-rank from epoch {self.epoch} on ({self.reason}): {len(self.ranks)} layers, "
            f"{before:,} parameters before and {after:,} after ({before / after:.2f}×)"
        ]
        lines += [f"  {name}: rank {rank}" for name, rank in self.ranks.items()]
        return "\n".join(lines + [f"  {name} stays dense: {why}" for name, why in self.refused.items()])


@dataclass(frozen=True)
class Replaced:
    """A dense parameter that the model no longer holds, known by reference only, and what came instead."""

    name: str
    parameter: weakref.ref[nn.Parameter]
    new: dict[str, nn.Parameter]
    """Dotted name → parameter: of a weight U and Vᵀ (`second.weight`, `first.weight`), of a bias the bias."""
    layer: LowRankLayer | None = None
    """The low-rank layer whose weight it was; None for a bias."""
    dense: Callable[[], nn.Module | None] = lambda: None
    """Returns the old layer as long as something else holds it."""
    added: dict[str, nn.Parameter] = field(default_factory=dict)
    """What came with a weight that no dense layer has: an extra BN's parameters, the first factor's bias."""


class Example:
    """Two samples, by which the model is compared with itself; the whole batch if it does not run on two."""

    def __init__(self, model: nn.Module, batch: Batch, forward: Forward | None):
        self.forward = forward or call_model
        self.batch = tree_map(_kept, first_samples(batch, 2))
        try:
            self.run(model)
        except Exception:
            self.batch = tree_map(_kept, first_samples(batch, len(first_tensor(batch))))

    @torch.no_grad()
    def run(self, model: nn.Module) -> list[Tensor]:
        """Return the tensors that the model puts out in eval mode."""
        device = next(model.parameters()).device  # the model may have moved since
        batch = tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, self.batch)
        devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
        with evaluating(model), eager(), torch.random.fork_rng(sorted(devices, key=str)):
            outputs = self.forward(model, batch)
        return [leaf.double() for leaf in tree_leaves(outputs) if _is_real(leaf)]


def switch(
    model: nn.Module,
    ranks: dict[str, int],
    shortcuts: list[str],
    settings: Settings,
    *,
    initialise: bool = True,
    example: Example | None = None,
) -> tuple[list[Replaced], float | None]:
    """Factorize the layers as the settings say and compare the model with what it was.

    Returns:
        What was replaced, and the relative change of the output on the example, if that can be compared.

    Raises:
        CuttlefishError: The model still runs an old layer, since something outside its modules holds it.
    """
    old = {name: _parameters(model, name) for name in ranks}
    layers = {name: weakref.ref(model.get_submodule(name)) for name in ranks}
    before = _outputs(model, example) if initialise else None
    plain = set() if settings.shortcut_bn else set(shortcuts)
    with_bn = {name: rank for name, rank in ranks.items() if settings.extra_bn and name not in plain}
    without = {name: rank for name, rank in ranks.items() if name not in with_bn}
    options = {"first_bias": settings.first_bias, "scheme": settings.scheme, "initialise": initialise}
    for group in filter(None, (with_bn, without)):
        factorize(model, group, extra_bn=group is with_bn, keep_dense=False, **options)
    replaced = [entry for name in ranks for entry in _successors(model, name, old[name], layers[name])]
    if example is None or before is None:
        return replaced, None
    seen: weakref.WeakSet[nn.Module] = weakref.WeakSet()
    with register_module_forward_hook(lambda module, *_: seen.add(module)):
        after = example.run(model)
    ran = [name for name, layer in layers.items() if layer() in seen]
    if ran:
        raise CuttlefishError(
            f"layer {ran[0]!r}{f' (and {len(ran) - 1} more)' if len(ran) > 1 else ''} was replaced, but the "
            "model still runs the old one, which something outside its modules (a closure, a cache) holds: "
            f"make that look the layer up, or leave it dense by dense={ran[:1]}"
        )
    return replaced, _difference(before, after)


def _outputs(model: nn.Module, example: Example | None) -> list[Tensor] | None:
    """Return the outputs on the example; None without one, or if the model has come not to take it."""
    try:
        return None if example is None else example.run(model)
    except Exception as error:
        logger.warning("the switch is not checked: the model no longer runs on the batch (%s)", error)
        return None


def _difference(before: list[Tensor], after: list[Tensor]) -> float | None:
    """Return the relative change; None where outputs hold no tensors, or others (boxes found, say)."""
    if not before or [x.shape for x in before] != [x.shape for x in after]:
        return None
    change = sum(float((a - b).square().sum()) for a, b in zip(after, before, strict=True))
    total = sum(float(b.square().sum()) for b in before)
    return sqrt(change / total) if total > 0 else 0.0


def _parameters(model: nn.Module, name: str) -> dict[str, weakref.ref[nn.Parameter]]:
    layer = model.get_submodule(name)
    return {key: weakref.ref(parameter) for key, parameter in layer.named_parameters(recurse=False)}


def _successors(
    model: nn.Module, name: str, old: dict[str, weakref.ref[nn.Parameter]], dense: weakref.ref[nn.Module]
) -> list[Replaced]:
    layer = low_rank_layers(model)[name]
    new = {f"{name}.{key}": parameter for key, parameter in layer.named_parameters()}
    factors = {key: new.pop(key) for key in (f"{name}.second.weight", f"{name}.first.weight")}
    bias = {key: new.pop(key) for key in (f"{name}.second.bias",) if key in new}
    entries = [Replaced(f"{name}.weight", old["weight"], factors, layer, dense, added=new)]
    return entries + ([Replaced(f"{name}.bias", old["bias"], bias)] if bias else [])


def _kept(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
