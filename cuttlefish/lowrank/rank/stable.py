"""The stable rank ‖W‖_F² / σ₁² (paper, section 3.3).

σ₁² is the largest eigenvalue of the smaller Gram matrix, W·Wᵀ or Wᵀ·W, and needs no singular value
decomposition.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cuttlefish.lowrank.matrix import gram, power_of_two


def stable_rank(weight: Tensor) -> float:
    """Return ‖W‖_F² / σ₁² of the weight unrolled to (dim 0) × (the rest).

    It is 0 for a zero matrix and NaN for one that is not finite, as are the other measures. Its relative
    error is below 1e-6 at any scale; where all singular values agree to a few 1e-6 (an orthogonal float32
    matrix), the value is within their spread.
    """
    return stable_ranks([weight])[0]


@torch.no_grad()
def stable_ranks(weights: Sequence[Tensor]) -> list[float]:
    """Return the stable rank of each weight: computed where the weights are, brought over in one transfer."""
    if not weights:
        return []
    pairs = [_energy_and_top(weight.detach()) for weight in weights]
    return [energy / top if top > 0 else energy for energy, top in torch.stack(pairs).cpu().tolist()]


def _energy_and_top(weight: Tensor) -> Tensor:
    """Return ‖W‖_F² and σ₁², both in float64 and of the weight times one power of two."""
    scale = power_of_two(weight)
    energy = (torch.linalg.vector_norm(weight, dtype=torch.float64) * scale) ** 2
    # Products of float32 numbers may be summed in float32: errors average out, and 1e-6 is asked for. Their
    # eigenvalues may not, nor may a GPU's TF32 come in.
    exact = torch.float64 if weight.is_cuda or weight.dtype == torch.float64 else torch.float32
    products = gram(weight.flatten(1).to(exact) * scale.to(exact))
    return torch.stack([energy, torch.linalg.eigvalsh(products.double().nan_to_num())[-1]])
