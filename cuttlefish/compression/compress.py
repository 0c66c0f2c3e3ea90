"""One-shot compression of a trained model: ranks by a ratio, an energy, a size, or given."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain
from math import floor
from typing import Any

import torch
from torch import Tensor, nn

from cuttlefish.compression.budget import energy_rank, ranks_for
from cuttlefish.compression.whitening import input_moments, root
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.count import count_parameters
from cuttlefish.lowrank.find import find_layers
from cuttlefish.lowrank.matrix import matrix_shape, truncated_svd, unroll
from cuttlefish.lowrank.split import split_layer
from cuttlefish.lowrank.surgery import break_even, check_ranks, replace_module, require_bare
from cuttlefish.lowrank.trace import Forward, call_model, trace

logger = logging.getLogger("cuttlefish")


@dataclass(frozen=True)
class Compression:
    """ranks: factorized layer → rank. errors: layer → relative error of what it computes (its weight, or with
    calibration its outputs) at that rank. parameters_before, parameters_after: all the model's.
    """

    ranks: dict[str, int]
    errors: dict[str, float]
    parameters_before: int
    parameters_after: int

    def __str__(self) -> str:
        lines = [f"{self.parameters_before:,} parameters before, {self.parameters_after:,} after"]
        lines += [
            f"  {name}: rank {rank}, error {self.errors[name]:.3f}" for name, rank in self.ranks.items()
        ]
        return "\n".join(lines)


def compress(
    model: nn.Module,
    *,
    ratio: float | None = None,
    energy: float | None = None,
    target_params: int | None = None,
    ranks: Mapping[str, int] | None = None,
    calibration: Iterable[Any] | None = None,
    dense: Sequence[str] = (),
    forward: Forward | None = None,
) -> Compression:
    """Make the layers of a trained model low-rank, in place. Layers that would not get smaller stay dense.

    Args:
        model: A plain module, neither wrapped nor compiled.
        ratio: Rank as a fraction of each layer's full rank.
        energy: Least share of the squared singular values that each layer keeps.
        target_params: Parameters of the whole model at most; ranks go where they keep the most energy for
            their parameters.
        ranks: Dotted layer name → rank.
        calibration: Batches of inputs. The factors then keep the outputs for such inputs, instead of the
            weight, and the first layer and those that feed an output stay dense.
        dense: Patterns of layers that stay dense, as in "*.head".
        forward: How to call the model on a batch of the calibration; model(x), model(*x) or model(**x) by
            default.

    Returns:
        What was done, with the error of each layer.

    Raises:
        CuttlefishError: Not exactly one of the four measures is given, or it cannot be met. Nothing is
            changed then.
    """
    _check(ratio, energy, target_params, ranks)
    require_bare(model)
    check_ranks(model, ranks or {})
    layers, moments = _layers(model, ranks, calibration, dense, forward)
    spectra = {name: _spectrum(layer, moments.get(name)) for name, layer in layers.items()}
    before = count_parameters(model).total
    if target_params is not None:
        shapes = {name: matrix_shape(layer.weight.shape) for name, layer in layers.items()}
        ranks = ranks_for(target_params, before, shapes, spectra)
    elif ratio is not None:
        ranks = {name: max(1, floor(ratio * len(spectrum))) for name, spectrum in spectra.items()}
    elif energy is not None:
        ranks = {name: energy_rank(spectrum, energy) for name, spectrum in spectra.items()}
    smaller = {name: rank for name, rank in (ranks or {}).items() if rank < break_even(layers[name])}
    for name, rank in smaller.items():
        replace_module(model, name, _split(layers[name], rank, moments.get(name)))
    errors = {name: _error(spectra[name], rank) for name, rank in smaller.items()}
    report = Compression(smaller, errors, before, count_parameters(model).total)
    logger.info("%s", report)
    return report


def _check(*measures: Any) -> None:
    given = sum(measure is not None for measure in measures)
    if given != 1:
        raise CuttlefishError(f"give one of ratio, energy, target_params and ranks, not {given} of them.")
    ratio, energy, *_ = measures
    for name, value in (("ratio", ratio), ("energy", energy)):
        if value is not None and not 0 < value <= 1:
            raise CuttlefishError(f"{name}={value} must be above 0 and at most 1.")


def _layers(
    model: nn.Module,
    ranks: Mapping[str, int] | None,
    calibration: Iterable[Any] | None,
    dense: Sequence[str],
    forward: Forward | None,
) -> tuple[dict[str, nn.Conv2d | nn.Linear], dict[str, Tensor]]:
    """Return the layers to compress, and the second moments of their inputs if there is a calibration."""
    found = find_layers(model).layers
    layers = {name: layer for name, layer in found.items() if not any(fnmatchcase(name, p) for p in dense)}
    if ranks is not None:
        layers = {name: found[name] for name in ranks}
    if calibration is None:
        return layers, {}
    batches = iter(calibration)
    first = next(batches, None)
    if first is None:
        raise CuttlefishError("the calibration has no batch.")
    path = trace(model, first, forward)
    ends = {path[0].name, *(layer.name for layer in path if layer.head)} if path else set()
    if ranks is None:
        layers = {layer.name: layers[layer.name] for layer in path if layer.name in layers.keys() - ends}
    return layers, input_moments(model, layers, chain([first], batches), forward or call_model)


@torch.no_grad()
def _spectrum(layer: nn.Conv2d | nn.Linear, moment: Tensor | None) -> Tensor:
    """Return the squared singular values of the weight, or of the weight seen through its inputs."""
    return torch.linalg.svdvals(_seen(layer, moment)).square()


def _seen(layer: nn.Conv2d | nn.Linear, moment: Tensor | None) -> Tensor:
    matrix = unroll(layer.weight.detach()).cpu().double()
    return matrix if moment is None else matrix @ root(moment)[0]


@torch.no_grad()
def _split(layer: nn.Conv2d | nn.Linear, rank: int, moment: Tensor | None) -> nn.Module:
    if moment is None:
        return split_layer(layer, rank)
    new = split_layer(layer, rank, initialise=False)
    U, Vt = truncated_svd(_seen(layer, moment), rank)
    second, first = new.shaped(U, Vt @ root(moment)[1])
    new.second.weight.copy_(second)
    new.first.weight.copy_(first)
    return new


def _error(spectrum: Tensor, rank: int) -> float:
    total = spectrum.sum()
    return float((spectrum[rank:].sum() / total).sqrt()) if total > 0 else 0.0
