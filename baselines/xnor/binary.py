"""Binary convolutions as in XNOR-Net's public CIFAR code: functions, and the unit BN → sign → convolution."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

EPS = 1e-4
"""Epsilon of the batch norm before the sign."""


@torch.no_grad()
def centre_and_clamp(weights: Sequence[Tensor]) -> None:
    """Centre W[o, i, a, b] over i, then clamp to [−1, 1], in place; latent weights are always used so."""
    for weight in weights:
        weight.sub_(weight.mean(1, keepdim=True)).clamp_(-1, 1)


def scales(weight: Tensor) -> Tensor:
    """Return α_o = mean |W_o| over the n = c_in·k·k weights of filter o, shaped (out, 1, 1, 1)."""
    return weight.abs().mean((1, 2, 3), keepdim=True)


def corrected_gradient(weight: Tensor, by_signs: Tensor, by_scales: Tensor) -> Tensor:
    """Return n·(1 − 1/c_in)·[∂L/∂sign(W)·1{|W| ≤ 1} + sign(W)·(1/n)·∂L/∂α], with n = c_in·k·k.

    For G = ∂L/∂(α·sign W) the two given gradients are α_o·G and Σ_o G·sign(W). The bracket is the chain rule,
    straight through the sign and through α; the factor accounts for the centring, and is a free rescale.
    """
    n = weight[0].numel()
    return n * (1 - 1 / weight.shape[1]) * (by_signs * (weight.abs() <= 1) + weight.sign() * (by_scales / n))


class BinaryWeight(torch.autograd.Function):
    """(sign(W), α), whose product is the binarised weight; exact zeros stay zero."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(weight)
        return weight.sign(), scales(weight)

    @staticmethod
    def backward(ctx: Any, by_signs: Tensor, by_scales: Tensor) -> Tensor:
        return corrected_gradient(ctx.saved_tensors[0], by_signs, by_scales)


class BinaryActivation(torch.autograd.Function):
    """sign(x) with sign(0) = 0; backward passes the gradient where −1 < x < 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sign()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.ops.aten.hardtanh_backward(
            gradient, ctx.saved_tensors[0], -1.0, 1.0
        )  # strict at both ends, in one pass


class BinaryConv2d(nn.Module):
    """BN of the input channels → sign → the given convolution, whose weight is used as α·sign(W) if `binary`.

    The convolution keeps its latent weight, used in training and state dicts; evaluation changes nothing.

    Args:
        act_scale: The paper's K beside α, the mean |x| over channels, averaged over each kernel window.
    """

    def __init__(self, conv: nn.Conv2d, binary: bool = True, act_scale: bool = False):
        super().__init__()
        self.bn = nn.BatchNorm2d(
            conv.in_channels, eps=EPS, device=conv.weight.device, dtype=conv.weight.dtype
        )
        self.conv, self.binary, self.act_scale = conv, binary, act_scale

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(x)
        y = self._convolved(BinaryActivation.apply(x))
        if self.act_scale:
            y = y * self._window_means(x.abs().mean(1, keepdim=True))
        return y if self.conv.bias is None else y + self.conv.bias.view(-1, 1, 1)

    def _convolved(self, signs: Tensor) -> Tensor:
        if not self.binary:
            return self.conv._conv_forward(signs, self.conv.weight, None)
        weight, alpha = BinaryWeight.apply(self.conv.weight)
        # Products of signs give integers, hence exact zeros: a sum of ±α would leave noise there, whose sign
        # affects a ReLU's gradient.
        y = self.conv._conv_forward(signs, weight, None)
        return y * alpha.view(-1, 1, 1).to(y)

    def _window_means(self, magnitude: Tensor) -> Tensor:
        height, width = self.conv.kernel_size
        return self.conv._conv_forward(
            magnitude, magnitude.new_full((1, 1, height, width), 1 / (height * width)), None
        )

    def extra_repr(self) -> str:
        return f"binary={self.binary}, act_scale={self.act_scale}"
