"""Ranks for a number of parameters: a rank more goes to where it keeps the most energy for its numbers."""

from bisect import bisect_left
from collections.abc import Mapping

import torch
from torch import Tensor

from cuttlefish.errors import CuttlefishError


def energy_rank(spectrum: Tensor, share: float) -> int:
    """Return the least rank that keeps a share of the energy (squared singular values, descending)."""
    kept = spectrum.cumsum(0)
    return min(1 + int((kept < share * kept[-1] * (1 - 1e-12)).sum()), len(spectrum))


def ranks_for(
    target: int, total: int, shapes: Mapping[str, tuple[int, int]], spectra: Mapping[str, Tensor]
) -> dict[str, int]:
    """Return layer → rank such that the model has at most `target` parameters.

    A rank of an m × n layer costs m + n numbers, up to the m·n of the dense weight, and keeps its σ² as a
    share of the layer's own energy. All layers are cut at one gain for a number, which is optimal for the sum
    of the kept shares.

    Args:
        target, total: Parameters of the model afterwards, and now.
        shapes: Layer → (m, n).
        spectra: Layer → squared singular values, descending.

    Raises:
        CuttlefishError: Even with rank 1 everywhere the model is larger.
    """
    gains = {
        name: spectrum / spectrum.sum().clamp_min(torch.finfo(spectrum.dtype).tiny) / sum(shapes[name])
        for name, spectrum in spectra.items()
    }

    def at(level: float) -> dict[str, int]:
        return {name: max(1, int((gain >= level).sum())) for name, gain in gains.items()}

    def size(ranks: dict[str, int]) -> int:
        dense = sum(m * n for m, n in shapes.values())
        return total - dense + sum(min(ranks[name] * (m + n), m * n) for name, (m, n) in shapes.items())

    if size(at(float("inf"))) > target:
        raise CuttlefishError(
            f"target_params={target:,} cannot be reached: with rank 1 in all {len(shapes)} layers the model "
            f"has {size(at(float('inf'))):,} parameters"
        )
    levels = [*torch.cat(list(gains.values())).unique().tolist(), float("inf")]
    lowest = bisect_left(levels, True, key=lambda level: size(at(level)) <= target)
    return at(levels[lowest])
