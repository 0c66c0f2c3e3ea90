"""Frobenius decay against autograd, and its invariants, in float64."""

import copy

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.optim import param_groups_weight_decay
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.decay import FrobeniusDecay, decay_groups
from cuttlefish.lowrank.layers import LowRankConv2d, LowRankLinear
from cuttlefish.lowrank.surgery import factorize

F64 = torch.float64
BUILDERS = {
    "channel": lambda: LowRankConv2d(4, 6, (3, 5), 3, dtype=F64),
    "spatial": lambda: LowRankConv2d(4, 6, (3, 5), 7, scheme="spatial", dtype=F64),
    "linear": lambda: LowRankLinear(5, 7, 4, dtype=F64),
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(params=BUILDERS)
def model(request):
    return nn.Sequential(nn.Linear(2, 2, dtype=F64), BUILDERS[request.param](), BUILDERS[request.param]())


def weights(model):
    return [layer.weight for low_rank in model[1:] for layer in (low_rank.second, low_rank.first)]


def frobenius(model, coefficient):
    """The definition: (λ/2)·‖W‖² of the rebuilt dense weights."""
    return coefficient / 2 * sum(low_rank.merged_weight().square().sum() for low_rank in model[1:])


def test_gradients_are_those_of_the_penalty(model):
    expected = torch.autograd.grad(frobenius(model, 0.3), weights(model))
    FrobeniusDecay(model, 0.3).add_gradients()
    for weight, gradient in zip(weights(model), expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-10, atol=1e-12)
    assert all(p.grad is None for p in model[0].parameters()) and model[1].second.bias.grad is None


def test_the_penalty_is_the_definition_and_differentiable(model):
    penalty = FrobeniusDecay(model, 0.3).penalty()
    torch.testing.assert_close(penalty, frobenius(model, 0.3), rtol=1e-12, atol=0)
    for ours, expected in zip(
        *(torch.autograd.grad(p, weights(model)) for p in (penalty, frobenius(model, 0.3))), strict=True
    ):
        torch.testing.assert_close(ours, expected)


def test_gradients_are_added_once_a_call(model):
    decay = FrobeniusDecay(model, 0.3)
    for weight in weights(model):
        weight.grad = torch.ones_like(weight)
    decay.add_gradients()
    once = [weight.grad - 1 for weight in weights(model)]
    decay.add_gradients()
    for weight, gradient in zip(weights(model), once, strict=True):
        torch.testing.assert_close(weight.grad, 1 + 2 * gradient)


def test_each_factor_has_the_same_product_with_its_gradient(model):
    """⟨G, dG⟩ = ⟨F, dF⟩ = λ·‖GF‖²."""
    FrobeniusDecay(model, 0.3).add_gradients()
    for low_rank in model[1:]:
        norm = 0.3 * low_rank.merged_weight().square().sum()
        for layer in (low_rank.first, low_rank.second):
            torch.testing.assert_close((layer.weight * layer.weight.grad).sum(), norm)


@given(st.integers(1, 4), st.sampled_from(["channel", "spatial"]))
@settings(deadline=None, max_examples=20)
def test_the_penalty_is_invariant_under_a_change_of_basis(rank, scheme):
    layer = LowRankConv2d(3, 4, 3, rank, scheme=scheme, bias=False, dtype=F64)
    decay, plain = (
        FrobeniusDecay(layer, 1.0),
        lambda: sum(p.square().sum().item() for p in layer.parameters()),
    )
    before, plain_before = decay.penalty().item(), plain()
    A = torch.randn(rank, rank, dtype=F64) + 3 * torch.eye(rank, dtype=F64)
    with torch.no_grad():
        G, F = layer.factors()
        second, first = layer.shaped(G @ A, torch.linalg.solve(A, F))
        layer.second.weight.copy_(second)
        layer.first.weight.copy_(first)
    assert decay.penalty().item() == pytest.approx(before, rel=1e-9)
    assert plain() != pytest.approx(plain_before, rel=1e-3)


def train(model, decay):
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for step in range(4):
        optimizer.zero_grad()
        model(torch.randn(3, 6, generator=torch.Generator().manual_seed(step))).square().mean().backward()
        if decay is not None:
            decay.add_gradients()
        optimizer.step()
    return [p.detach() for p in model.parameters()]


def test_a_coefficient_of_zero_is_bit_identical_to_none():
    model = factorize(nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)), {"0": 2, "2": 2})
    without, zero, some = model, copy.deepcopy(model), copy.deepcopy(model)
    reference = train(without, None)
    assert all(
        torch.equal(a, b) for a, b in zip(reference, train(zero, FrobeniusDecay(zero, 0.0)), strict=True)
    )
    assert not any(
        torch.equal(a, b) for a, b in zip(reference, train(some, FrobeniusDecay(some, 0.1)), strict=True)
    )


def test_a_coefficient_of_zero_creates_no_gradient(model):
    FrobeniusDecay(model, 0.0).add_gradients()
    assert all(p.grad is None for p in model.parameters())


def test_decay_alone_shrinks_the_product_but_not_its_rank():
    layer = LowRankLinear(5, 5, 2, bias=False, dtype=F64)
    decay, optimizer = FrobeniusDecay(layer, 0.1), torch.optim.SGD(layer.parameters(), 0.5)
    norms = []
    for _ in range(10):
        optimizer.zero_grad()
        decay.add_gradients()
        optimizer.step()
        norms.append(layer.merged_weight().norm().item())
    assert norms == sorted(norms, reverse=True) and torch.linalg.matrix_rank(layer.merged_weight()) == 2


def test_frozen_factors_are_skipped():
    layer = LowRankLinear(5, 5, 2)
    layer.first.weight.requires_grad_(False)
    FrobeniusDecay(layer, 0.1).add_gradients()
    assert layer.first.weight.grad is None and layer.second.weight.grad is not None


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor made under it."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.numel())
        return result


def test_no_matrix_of_the_dense_size_is_made():
    layer = LowRankLinear(50, 40, 3)
    with Largest() as largest:
        FrobeniusDecay(layer, 0.1).add_gradients()
    assert 0 < largest.elements <= 3 * 50


def test_gradients_follow_the_memory_format():
    for scheme in ("channel", "spatial"):
        layer = LowRankConv2d(4, 6, 3, 3, scheme=scheme, dtype=F64)
        expected = torch.autograd.grad(
            0.05 * layer.merged_weight().square().sum(), [layer.first.weight, layer.second.weight]
        )
        layer.to(memory_format=torch.channels_last)
        FrobeniusDecay(layer, 0.1).add_gradients()
        for weight, gradient in zip((layer.first.weight, layer.second.weight), expected, strict=True):
            assert weight.grad.stride() == weight.stride()
            torch.testing.assert_close(weight.grad, gradient)


def test_parameters_are_exactly_the_factors_of_the_chosen_layers(model):
    assert FrobeniusDecay(model, 0.1).parameters() == set(weights(model))
    chosen = FrobeniusDecay(model, 0.1, layers=["2"])
    assert chosen.parameters() == {model[2].first.weight, model[2].second.weight}
    chosen.add_gradients()
    assert model[1].first.weight.grad is None and model[2].first.weight.grad is not None


def test_a_shared_layer_decays_once():
    layer = LowRankLinear(4, 4, 2, dtype=F64)
    once = torch.autograd.grad(0.05 * layer.merged_weight().square().sum(), layer.first.weight)[0]
    FrobeniusDecay(nn.Sequential(layer, nn.Sequential(layer)), 0.1).add_gradients()
    torch.testing.assert_close(layer.first.weight.grad, once)


def test_a_dense_model_has_nothing_to_decay():
    decay = FrobeniusDecay(nn.Linear(3, 3), 0.1)
    decay.add_gradients()
    assert decay.parameters() == set() and decay.penalty() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (0.1, ["conw"]),
            "Frobenius decay was asked for 'conw', which is no low-rank layer; the nearest names are conv",
        ),
        ((0.1, ["dense"]), "asked for 'dense', which is no low-rank layer"),
        ((0.1,), "Layer 'bn' has an extra BN between its factors, which excludes Frobenius decay"),
        (
            (-1e-4, ["conv"]),
            "coefficient of Frobenius decay is -0.0001; it must be a finite number that is not negative",
        ),
        ((float("nan"), ["conv"]), "coefficient of Frobenius decay is nan"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    model = nn.ModuleDict(
        {
            "conv": LowRankConv2d(3, 4, 3, 2),
            "bn": LowRankConv2d(3, 4, 3, 2, extra_bn=True),
            "dense": nn.Linear(2, 2),
        }
    )
    with pytest.raises(CuttlefishError, match=message):
        FrobeniusDecay(model, *arguments)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adam, torch.optim.RMSprop])
def test_decay_is_decoupled_from_an_optimizer_that_scales_gradients(kind, model):
    """Step by step U ← U − η·λ·U(VᵀV) and likewise Vᵀ, beside what the optimizer does without decay."""
    decayed, plain = model, copy.deepcopy(model)
    decay = FrobeniusDecay(decayed, 0.3)
    groups = [{"params": [weight], "lr": 0.01 * (1 + index)} for index, weight in enumerate(weights(decayed))]
    optimizer = kind(groups, lr=1.0)
    decay.attach(optimizer)
    assert decay.attached
    gradients = torch.autograd.grad(frobenius(decayed, 0.3), weights(decayed))
    decay.add_gradients()
    for index, (ours, before, gradient) in enumerate(
        zip(weights(decayed), weights(plain), gradients, strict=True)
    ):
        assert ours.grad is None
        torch.testing.assert_close(ours, before - 0.01 * (1 + index) * gradient)


def test_decay_goes_through_the_momentum_of_sgd(model):
    """Three steps end where those on the loss with the penalty in it end."""
    other, ended = copy.deepcopy(model), []
    for net, by_hand in ((model, False), (other, True)):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True)
        decay = FrobeniusDecay(net, 0.3)
        decay.attach(optimizer)
        for _ in range(3):
            optimizer.zero_grad()
            loss = sum(weight.sum() for weight in weights(net))
            (loss + frobenius(net, 0.3) if by_hand else loss).backward()
            if not by_hand:
                decay.add_gradients()
            optimizer.step()
        ended.append(weights(net))
    for ours, theirs in zip(*ended, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "swin_tiny_patch4_window7_224"])
def test_what_timm_never_decays_is_exempt(name):
    small = {"depth": 1} if name.startswith("deit") else {"depths": (1, 1, 1, 1), "embed_dim": 24}
    model = timm.create_model(name, **small)
    theirs = param_groups_weight_decay(model, 0.05, no_weight_decay_list=model.no_weight_decay())
    ours, theirs = (
        {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
        for groups in (decay_groups(model, 0.05), theirs)
    )
    assert ours == theirs
