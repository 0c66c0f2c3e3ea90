"""Binary convolutions as in XNOR-Net's public CIFAR code: the functions, and the unit BN → sign → convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

EPS = 1e-4
"""Of the batch norm before the sign."""


@torch.no_grad()
def centre_and_clamp(weights: Sequence[Tensor]) -> None:
    """W[o, i, a, b] − mean over i, then into [−1, 1], in place: what the latent weights always are when they are read."""
    for weight in weights:
        weight.sub_(weight.mean(1, keepdim=True)).clamp_(-1, 1)


def scales(weight: Tensor) -> Tensor:
    """α_o = mean |W_o| over the n = c_in·k·k weights of filter o, shaped (out, 1, 1, 1)."""
    return weight.abs().mean((1, 2, 3), keepdim=True)


def corrected_gradient(weight: Tensor, gradient: Tensor) -> Tensor:
    """n·(1 − 1/c_in)·[α_o·G·1{|W| ≤ 1} + sign(W)·(1/n)·Σ_o G·sign(W)] for G = ∂L/∂W~.

    The bracket is the chain rule, straight through the sign and through α; the factor stands for the centring, and a free rescale.
    """
    sign = weight.sign()
    straight = scales(weight) * gradient * (weight.abs() <= 1)
    through_scale = sign * (gradient * sign).mean((1, 2, 3), keepdim=True)
    return weight[0].numel() * (1 - 1 / weight.shape[1]) * (straight + through_scale)


class BinaryWeight(torch.autograd.Function):
    """W~ = α·sign(W), an exact zero staying zero; backward is `corrected_gradient`."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return scales(weight) * weight.sign()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return corrected_gradient(ctx.saved_tensors[0], gradient)


class BinaryActivation(torch.autograd.Function):
    """sign(x) with sign(0) = 0; backward lets the gradient through where −1 < x < 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sign()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.ops.aten.hardtanh_backward(gradient, ctx.saved_tensors[0], -1.0, 1.0)  # strict at both ends, in one pass


class BinaryConv2d(nn.Module):
    """BN of the input channels → sign → the given convolution, whose weight is used as α·sign(W) if `binary`.

    The convolution keeps its latent weight, which is all that training and a state dict hold; nothing is restored after
    evaluation. act_scale: the paper's K beside α, the mean |x| over channels, averaged over each kernel window.
    """

    def __init__(self, conv: nn.Conv2d, binary: bool = True, act_scale: bool = False):
        super().__init__()
        self.bn = nn.BatchNorm2d(conv.in_channels, eps=EPS, device=conv.weight.device, dtype=conv.weight.dtype)
        self.conv, self.binary, self.act_scale = conv, binary, act_scale

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(x)
        weight = BinaryWeight.apply(self.conv.weight) if self.binary else self.conv.weight
        y = self.conv._conv_forward(BinaryActivation.apply(x), weight, None)
        if self.act_scale:
            y = y * self._window_means(x.abs().mean(1, keepdim=True))
        return y if self.conv.bias is None else y + self.conv.bias.view(-1, 1, 1)

    def _window_means(self, magnitude: Tensor) -> Tensor:
        height, width = self.conv.kernel_size
        return self.conv._conv_forward(magnitude, magnitude.new_full((1, 1, height, width), 1 / (height * width)), None)

    def extra_repr(self) -> str:
        return f"binary={self.binary}, act_scale={self.act_scale}"
