"""XNOR-Net's functions: binary weights, the corrected gradient, sign activations, and the unit made of
them."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings, strategies
from torch import nn
from torch.nn import functional as F

from baselines.xnor.binary import (
    BinaryActivation,
    BinaryConv2d,
    BinaryWeight,
    centre_and_clamp,
    corrected_gradient,
    scales,
)


def weight(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def binarised(W):
    signs, alpha = BinaryWeight.apply(W)
    return alpha * signs


def test_output_is_alpha_times_a_convolution_of_signs():
    conv = nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=False).double()
    unit = BinaryConv2d(conv).double()
    x = weight(2, 3, 7, 6)
    signs = F.conv2d(unit.bn(x).sign(), conv.weight.sign(), stride=2, padding=1)
    assert torch.equal(signs, signs.round()) and signs.abs().max() <= 27
    assert torch.equal(unit(x), scales(conv.weight).view(1, -1, 1, 1) * signs)
    corner = signs[:, :, 0, 0]
    assert corner.abs().max() <= 3 * 4, "zero padding adds nothing"


def test_gradients_are_those_of_the_binarised_weight():
    conv = nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=False).double()
    unit, x = BinaryConv2d(conv).double(), weight(2, 3, 7, 6).requires_grad_()
    whole = F.conv2d(BinaryActivation.apply(unit.bn(x)), binarised(conv.weight), stride=2, padding=1)
    wanted = torch.autograd.grad((whole**3).sum(), [conv.weight, unit.bn.weight, x])
    found = torch.autograd.grad((unit(x) ** 3).sum(), [conv.weight, unit.bn.weight, x])
    assert all(torch.allclose(one, other) for one, other in zip(found, wanted, strict=True))


def test_where_signs_cancel_the_output_is_exactly_zero():
    unit = BinaryConv2d(nn.Conv2d(64, 8, 3, padding=1, bias=False))
    y = unit(torch.randn(4, 64, 8, 8, generator=torch.Generator().manual_seed(0)))
    alpha = scales(unit.conv.weight).view(-1, 1, 1)
    assert torch.equal((y / alpha).round() == 0, y == 0) and (y == 0).float().mean() > 0.005


def test_bias_and_activation_scale():
    conv = nn.Conv2d(3, 5, 3, padding=1).double()
    plain, scaled = (BinaryConv2d(conv, act_scale=flag).double().eval() for flag in (False, True))
    x = weight(2, 3, 6, 6)
    bias = conv.bias.view(-1, 1, 1)
    K = F.avg_pool2d(scaled.bn(x).abs().mean(1, keepdim=True), 3, 1, 1)
    assert torch.allclose(scaled(x) - bias, (plain(x) - bias) * K)
    assert torch.allclose(scaled(3 * x) - bias, 3 * (scaled(x) - bias)), (
        "eval BN is linear here, and K keeps the magnitude"
    )


@settings(deadline=None, max_examples=30)
@given(seed=strategies.integers(0, 10**6), zeros=strategies.integers(0, 5))
def test_filters_have_three_values_and_zeros_stay(seed, zeros):
    W = weight(3, 2, 3, 3, seed=seed)
    W[0].view(-1)[:zeros] = 0
    result, alpha = binarised(W), scales(W)
    assert (
        torch.allclose(alpha.flatten(), torch.stack([filter.abs().sum() / 18 for filter in W]))
        and (alpha >= 0).all()
    )
    assert torch.equal(result.abs(), torch.where(W == 0, 0, alpha.expand_as(W)))
    assert (result == 0).sum() == (W == 0).sum() == zeros


@settings(deadline=None, max_examples=20)
@given(seed=strategies.integers(0, 10**6))
def test_alpha_and_signs_are_the_nearest_scaled_binary_filter(seed):
    W = weight(1, 2, 2, 2, seed=seed)
    best = (W**2).sum() - 8 * scales(W).squeeze() ** 2
    assert torch.allclose(((W - binarised(W)) ** 2).sum(), best)
    for signs in product((-1.0, 1.0), repeat=8):
        B = torch.tensor(signs, dtype=torch.float64).view_as(W)
        a = ((W * B).sum() / 8).clamp_min(0)
        assert ((W - a * B) ** 2).sum() >= best - 1e-12


@settings(deadline=None, max_examples=20)
@given(seed=strategies.integers(0, 10**6), factor=strategies.floats(1e-3, 1e3))
def test_scale_follows_the_weights_and_ignores_signs(seed, factor):
    W = weight(2, 3, 3, 3, seed=seed)
    assert torch.allclose(binarised(factor * W), factor * binarised(W), rtol=1e-9)
    assert torch.equal(scales(W * torch.where(weight(*W.shape, seed=seed + 1) > 0, 1, -1)), scales(W))


@settings(deadline=None, max_examples=20)
@given(seed=strategies.integers(0, 10**6), scale=strategies.sampled_from([0.1, 3.0]))
def test_latent_weights_are_centred_then_clamped(seed, scale):
    W = weight(4, 3, 3, 3, seed=seed, scale=scale)
    expected = torch.stack([torch.stack([W[o] - sum(W[o]) / 3]) for o in range(4)]).squeeze(1).clamp(-1, 1)
    latent = W.clone()
    centre_and_clamp([latent])
    assert torch.allclose(latent, expected) and latent.abs().max() <= 1
    if (expected.abs() < 1).all():
        again = latent.clone()
        centre_and_clamp([again])
        assert torch.allclose(again, latent, atol=1e-15) and torch.allclose(
            latent.sum(1), torch.zeros(()).double(), atol=1e-12
        )


def test_gradient_is_the_formula():
    W, G = weight(2, 3, 3, 3, scale=0.7), weight(2, 3, 3, 3, seed=1)
    W[1, 0, 0, 0] = 0
    expected, n = torch.empty_like(W), 27
    for o in range(2):
        alpha = W[o].abs().sum() / n
        total = (G[o] * W[o].sign()).sum()
        for index in product(range(3), repeat=3):
            w, g = W[o][index], G[o][index]
            expected[o][index] = n * (1 - 1 / 3) * (alpha * g * (abs(w) <= 1) + w.sign() / n * total)
    leaf = W.clone().requires_grad_()
    (binarised(leaf) * G).sum().backward()
    assert torch.allclose(leaf.grad, expected) and (W.abs() > 1).any()


def test_its_scale_part_is_the_derivative_through_alpha():
    W, target, h = weight(2, 3, 2, 2), weight(2, 3, 2, 2, seed=1), 1e-6
    signs = W.sign()

    def loss(W):
        return ((scales(W) * signs - target) ** 3).sum()

    binary = (scales(W) * signs).requires_grad_()
    ((binary - target) ** 3).sum().backward()
    by_scales = (binary.grad * signs).sum((1, 2, 3), keepdim=True)
    through_scale = corrected_gradient(W, torch.zeros_like(W), by_scales) / (12 * (1 - 1 / 3))
    for index in product(range(2), range(3), range(2), range(2)):
        step = torch.zeros_like(W)
        step[index] = h
        assert float((loss(W + step) - loss(W - step)) / (2 * h)) == pytest.approx(
            float(through_scale[index]), rel=1e-4, abs=1e-7
        )


def test_activations_are_signs_with_gradients_inside_one():
    x = torch.tensor([-2.0, -1.0, -0.5, 0.0, 0.999, 1.0, 3.0], requires_grad=True)
    y = BinaryActivation.apply(x)
    assert y.tolist() == [-1, -1, -1, 0, 1, 1, 1]
    y.backward(torch.arange(1.0, 8.0))
    assert x.grad.tolist() == [0, 0, 3, 4, 5, 0, 0]


def test_behind_a_relu_both_signs_occur():
    unit = BinaryConv2d(nn.Conv2d(4, 4, 1))
    given = F.relu(torch.randn(8, 4, 6, 6, generator=torch.Generator().manual_seed(0)))
    assert {-1.0, 1.0} <= set(unit.bn(given).sign().unique().tolist()) and given.sign().min() == 0


@pytest.mark.slow
def test_compiled_units_have_the_same_output_and_gradients():
    torch.manual_seed(0)
    unit, x = BinaryConv2d(nn.Conv2d(4, 8, 3, padding=1), act_scale=True), torch.randn(2, 4, 6, 6)
    eager = unit(x)
    wanted = torch.autograd.grad(eager.square().sum(), list(unit.parameters()))
    compiled = torch.compile(unit, fullgraph=True)(x)
    found = torch.autograd.grad(compiled.square().sum(), list(unit.parameters()))
    assert torch.allclose(compiled, eager, atol=1e-5)
    assert all(
        torch.allclose(one, other, rtol=1e-3, atol=1e-3) for one, other in zip(found, wanted, strict=True)
    )
