"""A layer's weight as the matrix that is factorized: unrolled, folded back, and its rank by several measures.

The stable rank (paper, section 3.3) needs σ₁ and ‖W‖_F alone. σ₁² is the largest eigenvalue of the smaller
Gram matrix, W·Wᵀ or Wᵀ·W, and needs no singular value decomposition.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cuttlefish.errors import CuttlefishError

SCHEMES = ("channel", "spatial")
GRAM_BLOCKS = 4
"""Column blocks of a Gram matrix. Of k blocks (k + 1) / 2k of the products are made."""


def check_scheme(scheme: str) -> None:
    """Raise CuttlefishError for an unknown factorization scheme."""
    if scheme not in SCHEMES:
        raise CuttlefishError(
            f"The factorization scheme is {scheme!r}; it must be one of {', '.join(SCHEMES)}."
        )


def matrix_shape(shape: Sequence[int], scheme: str = "channel") -> tuple[int, int]:
    """Return (m, n): out × in·kh·kw (channel) or out·kh × in·kw (spatial); out × in of a Linear."""
    check_scheme(scheme)
    if len(shape) == 2:
        return shape[0], shape[1]
    out_channels, in_channels, height, width = shape
    if scheme == "channel":
        return out_channels, in_channels * height * width
    return out_channels * height, in_channels * width


def unroll(weight: Tensor, scheme: str = "channel") -> Tensor:
    """Return the m × n matrix of a convolution kernel (out, in, kh, kw) or of a Linear weight (out, in).

    channel: dimension 0 against the rest (the transpose of the paper's section 2: the same singular values).
    spatial: M[o·kh + a, i·kw + b] = W[o, i, a, b], the matricisation of the SI&FD baseline.
    """
    rows_first = weight.transpose(1, 2) if scheme == "spatial" and weight.ndim == 4 else weight
    return rows_first.reshape(matrix_shape(weight.shape, scheme))


def fold(matrix: Tensor, shape: Sequence[int], scheme: str = "channel") -> Tensor:
    """Return an m × n matrix as a weight of this shape: the inverse of `unroll`."""
    if scheme == "channel" or len(shape) == 2:
        return matrix.reshape(shape)
    out_channels, in_channels, height, width = shape
    return matrix.reshape(out_channels, height, in_channels, width).transpose(1, 2)


def full_rank(weight: Tensor) -> int:
    """Return min(rows, columns) of the weight unrolled to (dim 0) × (the rest)."""
    return min(weight.shape[0], weight[0].numel())


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


def gram(matrix: Tensor) -> Tensor:
    """Return the smaller of W·Wᵀ and Wᵀ·W of an m × n matrix W; only its lower triangle is filled in.

    The lower triangle is what torch.linalg.eigh and eigvalsh read.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.t()
    size = wide.shape[0]
    product = wide.new_empty(size, size)
    step = max(-(-size // GRAM_BLOCKS), 32)  # smaller blocks cost more in calls than they save
    for start in range(0, size, step):
        torch.mm(wide[start:], wide[start : start + step].t(), out=product[start:, start : start + step])
    return product


def effective_rank(weight: Tensor) -> float:
    """Return exp(−Σ pᵢ·ln pᵢ) with pᵢ = σᵢ / Σσ (Roy and Vetterli, 2007)."""
    sigma = singular_values(weight)
    total = sigma.sum()
    if not total > 0:
        return total.item()
    shares = sigma / total
    return torch.special.entr(shares).sum().exp().item()


def energy_rank(weight: Tensor, share: float = 0.9) -> float:
    """Return the smallest r with σ₁² + … + σᵣ² ≥ share · ‖W‖_F²."""
    energies = singular_values(weight) ** 2
    total = energies.sum()
    if not total > 0:
        return total.item()
    return float(min(1 + int((energies.cumsum(0) < share * total).sum()), len(energies)))


def singular_values(weight: Tensor) -> Tensor:
    """Return the singular values, up to a power of two, in float64 on the CPU; NaN if W is not finite."""
    exact = weight.detach().flatten(1).cpu().double()
    if not exact.isfinite().all():
        return torch.full((full_rank(weight),), float("nan"), dtype=torch.float64, device="cpu")
    return torch.linalg.svdvals(exact * _scale(exact))


MEASURES: dict[str, Callable[[Tensor], float]] = {
    "stable": stable_rank,
    "entropy": effective_rank,
    "energy": energy_rank,
}
"""The measures of a matrix's rank that have a name."""


def _scale(weight: Tensor) -> Tensor:
    """Return the power of two (float64) that brings the largest entry to [0.5, 1); 1 for a zero matrix."""
    largest = torch.linalg.vector_norm(weight, float("inf"), dtype=torch.float64)
    return torch.where(largest == 0, 1.0, torch.frexp(largest).mantissa / largest)


def _energy_and_top(weight: Tensor) -> Tensor:
    """Return ‖W‖_F² and σ₁², both in float64 and of the weight times one power of two."""
    scale = _scale(weight)
    energy = (torch.linalg.vector_norm(weight, dtype=torch.float64) * scale) ** 2
    # Products of float32 numbers may be summed in float32: errors average out, and 1e-6 is asked for. Their
    # eigenvalues may not, nor may a GPU's TF32 come in.
    exact = torch.float64 if weight.is_cuda or weight.dtype == torch.float64 else torch.float32
    products = gram(weight.flatten(1).to(exact) * scale.to(exact))
    return torch.stack([energy, torch.linalg.eigvalsh(products.double().nan_to_num())[-1]])
