"""A layer's weight as the matrix that is factorized: unrolled, folded back, and its rank by several measures.

The stable rank (paper, section 3.3) needs σ₁ and ‖W‖_F alone: no full SVD, one transfer for any number of
layers. σ₁² is a Rayleigh-Ritz value of W·Wᵀ: the Gram matrix is squared a few times, which separates the top
of its spectrum even where there is no gap (random initialisation); a small random block is drawn into that
subspace and orthonormalised; the top eigenvalue of the projection of W itself is then exact to the square of
the subspace's error.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from cuttlefish.errors import CuttlefishError

SCHEMES = ("channel", "spatial")
BLOCK = 32
SQUARINGS = 6


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
    weights = [weight.detach() for weight in weights]
    scales = [_scale(weight) for weight in weights]
    grams = [_projected_gram(weight.flatten(1), scale) for weight, scale in zip(weights, scales, strict=True)]
    norms = [torch.linalg.vector_norm(weight, dtype=torch.float64) for weight in weights]
    energies = (torch.stack(norms) * torch.stack(scales)) ** 2
    packed = torch.cat([energies, torch.stack(grams).flatten()]).cpu()
    energies, grams = packed[: len(weights)], packed[len(weights) :].view(-1, BLOCK, BLOCK)
    top = torch.linalg.eigvalsh(grams.nan_to_num())[:, -1]
    return [
        energy / value if value > 0 else energy
        for energy, value in zip(energies.tolist(), top.tolist(), strict=True)
    ]


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


def _projected_gram(matrix: Tensor, scale: Tensor) -> Tensor:
    """Return a BLOCK × BLOCK matrix (float64) whose top eigenvalue is σ₁² of scale · `matrix` (m × n)."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.t()
    exact = wide.double() * scale
    if wide.shape[0] > BLOCK:
        # The subspace may be found in float32, its error counts squared; a GPU's TF32 would be too coarse.
        coarse = exact if wide.is_cuda else exact.float()
        exact = _top_subspace(coarse @ coarse.t()).t() @ exact
    gram = exact @ exact.t()
    return nn.functional.pad(gram, (0, BLOCK - gram.shape[0]) * 2)


def _top_subspace(gram: Tensor) -> Tensor:
    """Return an orthonormal block (m × BLOCK, float64) near a Gram matrix's (m × m) dominant eigenvectors."""
    smallest = torch.finfo(gram.dtype).tiny
    for _ in range(SQUARINGS):
        gram = gram / torch.linalg.matrix_norm(gram).clamp_min(smallest)
        gram = gram @ gram
    generator = torch.Generator("cpu").manual_seed(0)
    start = torch.randn(gram.shape[0], BLOCK, generator=generator, dtype=gram.dtype, device="cpu")
    return torch.linalg.qr((gram @ start.to(gram.device)).double()).Q
