"""GraSP's scores against an explicit Hessian, and their invariants."""

import math
from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from baselines.grasp.scores import choose_masks, hessian_gradient, lets_signal_through, scores, split_parts
from cuttlefish.methods.masks import prunable


class Net(nn.Module):
    """conv, train-mode BN, conv, BN, linear; smooth, so that an explicit Hessian exists everywhere."""

    def __init__(self, eps: float = 1e-5, norm: bool = True):
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.conv2, self.fc = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 3, bias=False), nn.Linear(3, 4)
        self.bn1, self.bn2 = (nn.BatchNorm2d(3, eps=eps) if norm else nn.Identity() for _ in range(2))
        self.double()

    def forward(self, x):
        x = torch.tanh(self.bn1(self.conv1(x)))
        return self.fc(torch.tanh(self.bn2(self.conv2(x))).mean((2, 3)))


def batch(size: int = 12, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(size) % 4
    return torch.randn(size, 2, 6, 6, generator=generator, dtype=torch.float64), labels


def halves(drawn=None):
    return lambda: split_parts(drawn or batch())


def gradient_of(model, parts, temperature=200.0):
    weights = list(prunable(model).values())
    loss = sum(F.cross_entropy(model(images) / temperature, labels) for images, labels in parts())
    return torch.autograd.grad(loss, weights)


def test_scores_are_those_of_an_explicit_hessian():
    model = Net()
    names = list(prunable(model))
    others = {name: value for name, value in model.named_parameters() if name not in names}
    buffers = dict(model.named_buffers())
    shapes = [value.shape for value in prunable(model).values()]
    theta = torch.cat([value.detach().flatten() for value in prunable(model).values()])

    def loss(flat):
        pieces = flat.split([math.prod(shape) for shape in shapes])
        weights = {name: piece.view(shape) for name, piece, shape in zip(names, pieces, shapes, strict=True)}
        state = {**others, **weights, **{name: value.clone() for name, value in buffers.items()}}
        return sum(
            F.cross_entropy(torch.func.functional_call(model, state, (x,)) / 200, y) for x, y in halves()()
        )

    H = torch.autograd.functional.hessian(loss, theta)
    g = torch.autograd.functional.jacobian(loss, theta)
    found = torch.cat([value.flatten() for value in scores(deepcopy(model), halves()).values()])
    torch.testing.assert_close(found, -theta * (H @ g), rtol=1e-8, atol=1e-16)
    assert float(found.sum()) == pytest.approx(float(-theta @ H @ g), rel=1e-8)


def test_scores_on_a_quadratic_are_theta_times_a_squared_theta():
    torch.manual_seed(0)
    theta = torch.randn(6, dtype=torch.float64, requires_grad=True)
    A = torch.randn(6, 6, dtype=torch.float64)
    A = A + A.T
    (product,) = hessian_gradient(lambda: iter([theta @ A @ theta / 2]), [theta])
    torch.testing.assert_close(product, (A @ A @ theta).detach())


def test_the_sign_prefers_what_carries_gradient_flow():
    """For a loss A θ² / 2 the flow g² falls most where A² θ² is large: a large score there would be wrong."""
    theta = torch.tensor([1.0, 1.0], dtype=torch.float64, requires_grad=True)
    A = torch.tensor([0.1, 3.0], dtype=torch.float64)
    (product,) = hessian_gradient(lambda: iter([(A * theta * theta).sum() / 2]), [theta])
    masks = choose_masks({"theta": -theta.detach() * product}, 1)
    assert masks["theta"].tolist() == [False, True]


def test_scores_of_a_normalised_layer_sum_to_the_gradient():
    """Such a layer's output does not depend on its scale: θ·g = 0 and θ·H·g = -|g|² per layer, if epsilon is
    negligible."""
    model = Net(eps=1e-14)
    gradient = dict(zip(prunable(model), gradient_of(model, halves()), strict=True))
    found = scores(deepcopy(model), halves())
    for name in ("conv1.weight", "conv2.weight"):
        theta, g = prunable(model)[name].detach(), gradient[name]
        assert float((theta * g).sum()) == pytest.approx(0, abs=1e-9 * float(theta.norm() * g.norm()))
        # g is homogeneous in θ_l: of degree -1 in the layer's own block, of degree 0 in the others, so H·θ_l = -g_l there and 0 elsewhere.
        assert float(found[name].sum()) == pytest.approx(float((g * g).sum()), rel=1e-9)
        assert found[name].sum() > 0


def test_masks_do_not_change_with_the_scale_of_the_loss():
    model, drawn = Net(), batch()
    weights = list(prunable(model).values())

    def scaled(factor):
        return lambda: (factor * F.cross_entropy(model(x) / 200, y) for x, y in split_parts(drawn))

    plain, other = (
        dict(zip("abc", hessian_gradient(scaled(factor), weights), strict=True)) for factor in (1.0, 0.5)
    )
    torch.testing.assert_close(other["b"], plain["b"] / 4)
    first, second = choose_masks(plain, 60), choose_masks(other, 60)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_temperature_is_a_scale_of_the_last_layer_s_output():
    model = Net()

    class Cooler(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = deepcopy(model)

        def forward(self, x):
            return self.net(x) / 200

    hot, cool = scores(deepcopy(model), halves(), temperature=200), scores(Cooler(), halves(), temperature=1)
    for name, score in hot.items():
        torch.testing.assert_close(cool[f"net.{name}"], score, rtol=1e-12, atol=0)


def test_train_mode_is_what_counts():
    train, still = scores(Net().train(), halves()), scores(Net().eval(), halves())
    assert not torch.allclose(train["conv1.weight"], still["conv1.weight"], rtol=0.1, atol=0)


def test_chunks_of_equal_size_without_norms_score_alike():
    model, drawn = Net(norm=False), batch(12)
    whole = scores(deepcopy(model), lambda: [drawn])
    for size in (6, 4, 3):
        found = scores(deepcopy(model), lambda size=size: split_parts(drawn, size))
        for name in whole:
            torch.testing.assert_close(found[name], whole[name] * (12 // size) ** 2, rtol=1e-9, atol=1e-18)
    uneven = scores(deepcopy(model), lambda: split_parts(drawn, 5))
    assert not torch.allclose(uneven["fc.weight"] / 9, whole["fc.weight"], rtol=1e-3, atol=0)


def test_dropout_is_the_same_in_both_passes():
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(72, 5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 4)
    ).double()
    dropped = []
    model[3].register_forward_hook(lambda module, inputs, output: dropped.append(output == 0))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = scores(model, halves())
    assert torch.equal(torch.get_rng_state(), before)
    gradient, product = dropped[:2], dropped[2:]
    assert [mask.shape for mask in product] == [mask.shape for mask in gradient] == [(6, 5)] * 2
    assert all(torch.equal(*masks) for masks in zip(gradient, product, strict=True)) and not torch.equal(
        *gradient
    )
    second = scores(model, halves())
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_weight_that_is_not_used_scores_zero():
    model = Net()
    model.spare = nn.Linear(2, 2).double()
    assert not scores(model, halves())["spare.weight"].any()


def test_a_signal_is_one_that_depends_on_the_input():
    model = Net()
    assert lets_signal_through(model, batch()[0])
    model.conv2.weight.data.zero_()
    assert not lets_signal_through(model, batch()[0])
