"""A layer's weight as the matrix that is factorized, and back."""

from collections.abc import Sequence

from torch import Tensor

from cuttlefish.errors import CuttlefishError

SCHEMES = ("channel", "spatial")


def check_scheme(scheme: str) -> None:
    if scheme not in SCHEMES:
        raise CuttlefishError(
            f"The factorization scheme is {scheme!r}; it must be one of {', '.join(SCHEMES)}."
        )


def matrix_shape(shape: Sequence[int], scheme: str = "channel") -> tuple[int, int]:
    """(m, n) of the unrolled weight: out × in·kh·kw (channel), out·kh × in·kw (spatial), out × in (a Linear, both schemes)."""
    check_scheme(scheme)
    if len(shape) == 2:
        return shape[0], shape[1]
    out_channels, in_channels, height, width = shape
    if scheme == "channel":
        return out_channels, in_channels * height * width
    return out_channels * height, in_channels * width


def unroll(weight: Tensor, scheme: str = "channel") -> Tensor:
    """The m × n matrix of a convolution kernel (out, in, kh, kw) or of a Linear weight (out, in).

    channel: dimension 0 against the rest (the transpose of the paper's section 2: the same singular values).
    spatial: M[o·kh + a, i·kw + b] = W[o, i, a, b], the matricisation of the SI&FD baseline.
    """
    rows_first = weight.transpose(1, 2) if scheme == "spatial" and weight.ndim == 4 else weight
    return rows_first.reshape(matrix_shape(weight.shape, scheme))


def fold(matrix: Tensor, shape: Sequence[int], scheme: str = "channel") -> Tensor:
    """The inverse of `unroll`: an m × n matrix as a weight of this shape."""
    if scheme == "channel" or len(shape) == 2:
        return matrix.reshape(shape)
    out_channels, in_channels, height, width = shape
    return matrix.reshape(out_channels, height, in_channels, width).transpose(1, 2)
