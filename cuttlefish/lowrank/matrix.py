"""A layer's weight as the matrix that is factorized: unrolled, folded back, best approximated by factors."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.threads import side_by_side

SCHEMES = ("channel", "spatial")
GRAM_BLOCKS = 8
"""Column blocks of a Gram matrix. Of k blocks (k + 1) / 2k of the products are made."""
ACCURATE = 1e-8
"""Smallest λᵣ / λ₁ of a Gram matrix from which σᵣ and its vectors are still taken."""
SMALLEST = 1e-280
"""Smallest λᵣ: below it squares begin to lose digits to the end of float64's range."""
RESOLVED = 100 * torch.finfo(torch.float32).eps
"""Smallest (λᵣ − λᵣ₊₁) / λ₁ that float32 eigenvalues show well."""
SMALL = 128
"""Smaller side up to which float32 eigenvectors and their refinement save nothing."""
EXCESS = 1e-12
"""How far above the least possible squared error a float32 weight's may be, relative to that."""


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


def gram(matrix: Tensor) -> Tensor:
    """Return the smaller of W·Wᵀ and Wᵀ·W of an m × n matrix W."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.t()
    size = wide.shape[0]
    product = wide.new_empty(size, size)
    step = max(-(-size // GRAM_BLOCKS), 32)  # smaller blocks cost more in calls than they save
    for start in range(0, size, step):
        end = start + step
        torch.mm(wide[start:], wide[start:end].t(), out=product[start:, start:end])
        product[start:end, end:] = product[end:, start:end].t()
    return product


def power_of_two(matrix: Tensor) -> Tensor:
    """Return the power of two (float64) that brings the largest entry to [0.5, 1); 1 for a zero matrix."""
    least, greatest = torch.aminmax(matrix)  # many times as fast as the infinity norm
    largest = torch.maximum(-least, greatest).double()
    return torch.where(largest == 0, 1.0, torch.frexp(largest).mantissa / largest)


@torch.no_grad()
def truncated_svd(matrix: Tensor, rank: int, *, exact: bool = False) -> tuple[Tensor, Tensor]:
    """Return (U·√S, √S·Vᵀ): the best approximation of this rank, equally shared (Algorithm 1).

    Computed in float64 on the CPU, where it is deterministic, from the top eigenvectors of the smaller Gram
    matrix: the product is the best one to about 1e-13. A Gram matrix squares the condition number, so where
    σᵣ is below 1e-4·σ₁ the full SVD is taken. Of weights that are not float64 themselves, the eigenvectors
    are computed in float32 and refined in float64, where that leaves ‖W − U·Vᵀ‖² within about 1e-12 of the
    least possible.

    Args:
        matrix: m × n, of any floating dtype, on any device.
        rank: r, from 1 to min(m, n).
        exact: Take the full SVD in any case.

    Returns:
        The factors, m × r and r × n, in the matrix's dtype and on its device.

    Raises:
        CuttlefishError: The rank is impossible, or the matrix holds NaN or infinite values.
    """
    full = min(matrix.shape)
    if not 1 <= rank <= full:
        raise CuttlefishError(
            f"Rank {rank} was asked of a {matrix.shape[0]}×{matrix.shape[1]} matrix; "
            f"it must be from 1 to {full}."
        )
    U, Vt = _decomposed(matrix.detach().cpu(), rank, exact)
    return U.to(matrix), Vt.to(matrix)


def truncated_svds(matrices: Iterable[tuple[Tensor, int]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (U·√S, √S·Vᵀ) of each matrix at its rank in float64 on the CPU, computing several at a time."""
    return side_by_side(_decomposed, ((matrix.detach().cpu(), rank) for matrix, rank in matrices))


def _decomposed(matrix: Tensor, rank: int, exact: bool = False) -> tuple[Tensor, Tensor]:
    double = matrix.double()
    tall = double if double.shape[0] >= double.shape[1] else double.T
    factors = None if exact else _by_eigenvectors(tall, rank, refine=matrix.dtype != torch.float64)
    left, right = factors or _by_singular_vectors(tall, rank)
    U, V = (left, right) if tall is double else (right, left)
    return U, V.T.contiguous()


def _by_eigenvectors(tall: Tensor, rank: int, refine: bool) -> tuple[Tensor, Tensor] | None:
    """Return (U·√S, V·√S) of WᵀW = V·S²·Vᵀ and U·S = W·V, or None where that would be inaccurate."""
    products = gram(tall.T)
    # The diagonal bounds the rest. If it is not finite, the matrix or its squares are not.
    if not products.diagonal().sum().isfinite():
        return None
    found = _refined(products, rank) if refine and SMALL < len(products) else None
    energies, V = found or _top_eigenvectors(products, rank)
    if not energies[-1] > max(ACCURATE * energies[0].item(), SMALLEST):
        return None
    US = tall @ V
    root = torch.linalg.vector_norm(US, dim=0).sqrt()  # σ is more accurate here than from its square
    return US / root, V * root


def _top_eigenvectors(products: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the largest eigenvalues, in descending order, and their vectors."""
    energies, vectors = torch.linalg.eigh(products)
    return energies[-rank:].flip(0), vectors[:, -rank:].flip(1)


def _refined(products: Tensor, rank: int) -> tuple[Tensor, Tensor] | None:
    """Return what `_top_eigenvectors` does, or None where float32 resolves the eigenvalues too poorly.

    Float32 eigenvectors X are off by their coupling XᵢᵀA·vⱼ over the gap λⱼ − λᵢ. A correction by that leaves
    an error of second order (Newton's method; Ogita and Aishima, 2018). What it costs in ‖W − U·Vᵀ‖² is
    estimated from the coupling that is left, over the gap below λᵣ.
    """
    trace = products.diagonal().sum()
    if rank == len(products) or trace < SMALLEST:
        return None
    shares = products / trace  # within float32's range
    values, X = torch.linalg.eigh(shares.float())
    V = X[:, -rank:].double()
    image = shares @ V
    energies = (V * image).sum(0) / V.square().sum(0)
    coupling = X.T @ (image - V * energies).float()
    gaps = energies.float() - values.unsqueeze(1)
    for matrix, value in ((coupling, 0.0), (gaps, 1.0)):
        matrix.diagonal(rank - len(values)).fill_(value)
    correction = coupling / gaps
    left = 4 * (correction.norm() * coupling.norm()).double().square()
    gap = values[-rank] - values[-rank - 1]
    if not (gap > RESOLVED * values[-1] and left <= EXCESS * gap * (1 - energies.sum())):
        return None
    V += (X @ correction).double()
    V = V.flip(1)
    V = 1.5 * V - 0.5 * V @ (V.T @ V)  # orthonormal, again to second order
    return energies.flip(0) * trace, V


def _by_singular_vectors(tall: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    if not tall.isfinite().all():
        raise CuttlefishError(
            "The matrix to decompose holds NaN or infinite values; factorize before training diverges."
        )
    U, S, Vt = torch.linalg.svd(tall, full_matrices=False)  # LAPACK is several times slower on wide ones
    root = S[:rank].sqrt()
    return U[:, :rank] * root, Vt[:rank].T * root
