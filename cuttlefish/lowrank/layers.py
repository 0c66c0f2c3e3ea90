"""Layers with a weight U·Vᵀ: a convolution or Linear to `rank` channels (Vᵀ), then one back out (U)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.layout import keep_plain
from cuttlefish.lowrank.matrix import check_scheme, fold, matrix_shape


class LowRankLayer(nn.Module):
    """What both kinds share: a weight U·Vᵀ, executed as second(first(x)), with `bn` between the two or None.

    State-dict keys: `first.weight` (Vᵀ), `bn.*` (only with an extra BN), `second.weight` (U), `second.bias`,
    and `first.bias` where a Linear has one.
    """

    __jit_unused_properties__ = ["weight", "bias"]

    if TYPE_CHECKING:  # TorchScript would read these, too
        first: nn.Conv2d | nn.Linear
        second: nn.Conv2d | nn.Linear
        bn: nn.BatchNorm2d | None

    def __init__(self, weight_shape: Sequence[int], rank: int, scheme: str):
        super().__init__()
        full = min(matrix_shape(weight_shape, scheme))
        if not 1 <= rank <= full:
            shape = "×".join(map(str, weight_shape))
            raise CuttlefishError(
                f"Rank {rank} was asked of a {shape} weight; "
                f"in the {scheme} scheme it must be from 1 to {full}."
            )
        self.weight_shape = torch.Size(weight_shape)
        self.rank = rank
        self.scheme = scheme

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.bn is not None:
            x = self.bn(x)
        return self.second(x)

    @property
    def weight(self) -> Tensor:
        """The dense layer's weight, for code that reads it: U·Vᵀ, computed anew each time; no parameter."""
        return self.merged_weight()

    @property
    def bias(self) -> nn.Parameter | None:
        """The second factor's bias."""
        return cast(nn.Parameter | None, self.second.bias)

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return (U, Vᵀ), m × r and r × n: the second and the first factor as matrices (differentiable)."""
        return self.second.weight.movedim(1, -1).reshape(-1, self.rank), self.first.weight.flatten(1)

    def shaped(self, U: Tensor, Vt: Tensor) -> tuple[Tensor, Tensor]:
        """Return matrices like those of `factors()` in the shapes of `second.weight` and `first.weight`."""
        out_channels, _, *kernel = self.second.weight.shape
        return U.reshape(out_channels, *kernel, self.rank).movedim(-1, 1), Vt.reshape(self.first.weight.shape)

    def merged_weight(self) -> Tensor:
        """Return the dense layer's weight U·Vᵀ, (out, in, kh, kw) or (out, in). An extra BN is not in it."""
        U, Vt = self.factors()
        return fold(U @ Vt, self.weight_shape, self.scheme)


class LowRankConv2d(LowRankLayer):
    """A convolution of rank at most `rank`, for inputs (B, in, H, W) as nn.Conv2d takes them.

    A new layer's two parts have torch's default initialisation; `split_layer` makes one from a dense layer.

    Args:
        rank: From 1 to the full rank of the unrolled weight.
        scheme: `channel` (paper, section 2) is a kh×kw convolution in → rank with the stride, padding and
            dilation, then 1×1 to out. `spatial` (the SI&FD baseline) is 1×kw in → rank with what belongs to
            the width, then kh×1 to out with what belongs to the height.
        extra_bn: Batch normalisation of the `rank` channels between the factors; channel scheme only.

    The other arguments are those of nn.Conv2d with groups = 1; the bias is the second factor's. Raises
    CuttlefishError for an impossible rank, scheme or extra BN.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        rank: int,
        *,
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        padding_mode: str = "zeros",
        bias: bool = True,
        scheme: str = "channel",
        extra_bn: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        check_extra_bn(extra_bn, scheme)
        super().__init__((out_channels, in_channels, *_pair(kernel_size)), rank, scheme)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, 1
        self.kernel_size, self.stride, self.dilation = _pair(kernel_size), _pair(stride), _pair(dilation)
        self.padding = padding if isinstance(padding, str) else _pair(padding)
        self.padding_mode = padding_mode
        first, second = self._geometries()
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        self.first = nn.Conv2d(in_channels, rank, **first, bias=False, **place)
        self.bn = nn.BatchNorm2d(rank, **place) if extra_bn else None
        self.second = nn.Conv2d(rank, out_channels, **second, bias=bias, **place)
        keep_plain(self)

    def _geometries(self) -> tuple[dict[str, Any], dict[str, Any]]:
        if self.scheme == "spatial":
            return self._along(width=True), self._along(width=False)
        whole = {
            name: getattr(self, name)
            for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        }
        return whole, {"kernel_size": 1}

    def _along(self, width: bool) -> dict[str, Any]:
        """Return the geometry of one axis, neutral along the other one. Padding of any mode is separable."""

        def only(values: tuple[int, int], neutral: int) -> tuple[int, int]:
            return (neutral, values[1]) if width else (values[0], neutral)

        return {
            "kernel_size": only(self.kernel_size, 1),
            "stride": only(self.stride, 1),
            "padding": self.padding if isinstance(self.padding, str) else only(self.padding, 0),
            "dilation": only(self.dilation, 1),
            "padding_mode": self.padding_mode,
        }

    def extra_repr(self) -> str:
        sizes = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        return f"{sizes}, rank={self.rank}, scheme={self.scheme}"


class LowRankLinear(LowRankLayer):
    """A Linear layer of rank at most `rank`: in → rank, then rank → out.

    Input (..., in), output (..., out). first_bias: also a bias of `rank` numbers between the two, which the
    reference's code has in its transformers. Raises CuttlefishError for an impossible rank.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        *,
        bias: bool = True,
        first_bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__((out_features, in_features), rank, "channel")
        self.in_features, self.out_features = in_features, out_features
        self.first = nn.Linear(in_features, rank, bias=first_bias, device=device, dtype=dtype)
        self.bn = None
        self.second = nn.Linear(rank, out_features, bias=bias, device=device, dtype=dtype)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, rank={self.rank}"


def check_extra_bn(extra_bn: bool, scheme: str) -> None:
    """Raise CuttlefishError where both exclude each other.

    A BN's shift cannot be merged through the zero padding of the spatial scheme's second factor.
    """
    check_scheme(scheme)
    if extra_bn and scheme == "spatial":
        raise CuttlefishError(
            "An extra BN between the factors was asked for in the spatial scheme; "
            "it exists only in the channel scheme."
        )


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
