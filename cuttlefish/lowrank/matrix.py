"""A layer's weight as the matrix that is factorized: unrolled, folded back, its smaller Gram matrix."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cuttlefish.errors import CuttlefishError

SCHEMES = ("channel", "spatial")
GRAM_BLOCKS = 8
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


def power_of_two(matrix: Tensor) -> Tensor:
    """Return the power of two (float64) that brings the largest entry to [0.5, 1); 1 for a zero matrix."""
    least, greatest = torch.aminmax(matrix)  # many times as fast as the infinity norm
    largest = torch.maximum(-least, greatest).double()
    return torch.where(largest == 0, 1.0, torch.frexp(largest).mantissa / largest)
