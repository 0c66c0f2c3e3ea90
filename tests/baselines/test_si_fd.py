"""SI&FD: the right matricisation, balanced factors, Frobenius decay, the size knob, and what stays
untouched."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings, strategies
from torch import nn

from baselines.si_fd.method import (
    Settings,
    SpectralFrobenius,
    factorized_convs,
    saved_parameters,
    spatial_rank,
)
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.decay import FrobeniusDecay
from cuttlefish.lowrank.matrix import truncated_svd, unroll
from cuttlefish.lowrank.split import split_layer
from cuttlefish.lowrank.surgery import factorize, low_rank_layers
from cuttlefish.methods.target import find_fraction
from cuttlefish.models.resnet_cifar import ResNet
from cuttlefish.models.vgg_cifar import Vgg19
from cuttlefish.worker import run_config
from tests.helpers.runs import little_config

EXAMPLE = torch.zeros(1, 3, 32, 32)


def run(folder, **knobs):
    return run_config(replace(little_config(folder), method={"name": "si_fd", **knobs}))


def shapes_of(network, classes: int = 10, width: int = 64):
    model = network(classes, width=width).to("meta")
    return sum(parameter.numel() for parameter in model.parameters()), factorized_convs(
        model, EXAMPLE.to("meta")
    )


def random_conv(out=6, inputs=5, kernel=3, **options):
    torch.manual_seed(0)
    return nn.Conv2d(inputs, out, kernel, **options).double()


def squares(tensor):
    return float((tensor.detach() ** 2).sum())


def test_the_reference_s_resnet18_has_two_million_parameters():
    full, shapes = shapes_of(ResNet)
    assert len(shapes) == 16 and not any("shortcut" in name for name in shapes) and "conv1" not in shapes
    assert full - saved_parameters(shapes, 0.08) == 2_069_130
    ranks = [spatial_rank(shape, 0.08) for shape in shapes.values()]
    assert ranks == [15] * 4 + [31] * 4 + [61] * 4 + [123] * 4


def test_the_reference_s_vgg19_is_found_by_bisection():
    full, shapes = shapes_of(Vgg19)
    rho = find_fraction(lambda rho: full - saved_parameters(shapes, rho), 0.1 * full)
    assert len(shapes) == 15 and rho == pytest.approx(0.0476074, abs=1e-7)
    assert full - saved_parameters(shapes, rho) == full - saved_parameters(shapes, 0.0476074) == 1_996_618


@pytest.mark.parametrize(("rank", "kernel"), [(1, 3), (4, 3), (15, 3), (3, 1)])
def test_factors_are_the_best_approximation_and_balanced(rank, kernel):
    conv = random_conv(kernel=kernel)
    M = torch.stack(
        [torch.stack([conv.weight[o, i] for i in range(5)], 1).reshape(kernel, -1) for o in range(6)]
    ).reshape(6 * kernel, -1)
    S = torch.linalg.svdvals(M)
    layer = split_layer(conv, rank, scheme="spatial")
    U, VT = layer.factors()
    assert squares(M - U @ VT) == pytest.approx(squares(S[rank:]), abs=1e-12)
    for gram in (U.T @ U, VT @ VT.T):
        assert torch.allclose(gram, torch.diag(S[:rank]), atol=1e-10)
    assert (squares(U) + squares(VT)) / 2 == pytest.approx(float(S[:rank].detach().sum()))


@settings(deadline=None, max_examples=30)
@given(
    kernel=strategies.sampled_from([1, 3, (3, 1)]), stride=strategies.integers(1, 3), padding=strategies.integers(0, 2),
    height=strategies.integers(3, 9), width=strategies.integers(3, 9), rank=strategies.integers(1, 5), bias=strategies.booleans(),
)  # fmt: skip
def test_two_steps_equal_one_convolution_with_the_rebuilt_kernel(
    kernel, stride, padding, height, width, rank, bias
):
    conv = random_conv(kernel=kernel, stride=stride, padding=padding, bias=bias)
    layer = split_layer(conv, rank, scheme="spatial")
    x = torch.randn(2, 5, height, width, dtype=torch.float64)
    whole = nn.functional.conv2d(x, layer.merged_weight(), conv.bias, stride, padding)
    assert torch.allclose(layer(x), whole, atol=1e-10)


def test_at_full_rank_the_network_is_the_dense_one():
    torch.manual_seed(0)
    dense = ResNet(10, width=8).double().eval()
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    before = dense(x)
    shapes = factorized_convs(dense, x)
    factorize(
        dense,
        {name: spatial_rank(shape, 1.0) for name, shape in shapes.items()},
        scheme="spatial",
        keep_dense=False,
    )
    assert low_rank_layers(dense).keys() == shapes.keys()
    assert torch.allclose(dense(x), before, atol=1e-10)


def test_the_naive_reshape_is_another_kernel():
    conv = random_conv()
    naive = conv.weight.reshape(6 * 3, 5 * 3)
    U, VT = truncated_svd(naive, 4)
    # The forward pass reads M[o·k + a, i·k + b]; a kernel cut out of the naive matrix is not the nearest to W.
    kernel = (U @ VT).reshape(6, 3, 5, 3).transpose(1, 2)
    ours = split_layer(conv, 4, scheme="spatial").merged_weight()
    assert squares(conv.weight - kernel) > 1.5 * squares(conv.weight - ours)
    assert not torch.equal(naive, unroll(conv.weight, "spatial"))


def test_frobenius_decay_is_the_gradient_of_half_the_square():
    layer = split_layer(random_conv(), 4, scheme="spatial")
    model, decay = nn.Sequential(layer), 0.3
    FrobeniusDecay(model, decay).add_gradients()
    added = [layer.first.weight.grad.clone(), layer.second.weight.grad.clone()]
    model.zero_grad()
    (decay / 2 * layer.merged_weight().square().sum()).backward()
    parameters = [layer.first.weight, layer.second.weight]
    assert all(
        torch.allclose(grad, parameter.grad) for grad, parameter in zip(added, parameters, strict=True)
    )
    product = decay * squares(layer.merged_weight())
    inner = [
        float((grad * parameter.detach()).sum()) for grad, parameter in zip(added, parameters, strict=True)
    ]
    assert inner == pytest.approx([product, product])


def test_frobenius_decay_does_not_see_how_the_product_is_shared():
    layer = split_layer(random_conv(), 4, scheme="spatial")
    penalty, l2 = (
        FrobeniusDecay(nn.Sequential(layer), 0.3).penalty().item(),
        squares(layer.first.weight) + squares(layer.second.weight),
    )
    A = torch.randn(4, 4, dtype=torch.float64) + 3 * torch.eye(4)
    U, VT = layer.factors()
    second, first = layer.shaped(U @ A, torch.linalg.solve(A, VT))
    with torch.no_grad():
        layer.second.weight.copy_(second), layer.first.weight.copy_(first)
    assert FrobeniusDecay(nn.Sequential(layer), 0.3).penalty().item() == pytest.approx(penalty)
    assert squares(layer.first.weight) + squares(layer.second.weight) > 1.1 * l2


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_it_trains_as_a_network_factorized_before_the_first_step(tmp_path, decay):
    """To the bit, by another way to the same factors; with a decay of 0 that way has no Frobenius decay."""
    one = run(tmp_path / "one", rho=0.2, frobenius_decay=decay)
    fixed = {"k": 1, "switch_epoch": 0, "ranks": one.ranks, "scheme": "spatial", "keep_dense": False}
    method = {"name": "cuttlefish", "frobenius_decay": decay, **fixed}
    other = run_config(replace(little_config(tmp_path / "other"), method=method))
    assert (other.loss_final, other.params_total) == (one.loss_final, one.params_total)
    assert one.loss_final != run(tmp_path / "third", rho=0.2, frobenius_decay=decay + 0.1).loss_final


@settings(deadline=None, max_examples=50)
@given(target=strategies.integers(360_000, 4_000_000))
def test_bisection_is_no_worse_than_any_rho_it_visited(target):
    full, shapes = (
        2_797_610,
        {f"{index}": torch.Size(shape) for index, shape in enumerate([(128, 64, 3, 3), (512, 512, 3, 3)])},
    )
    visited = []

    def size(rho):
        visited.append((rho, full - saved_parameters(shapes, rho)))
        return visited[-1][1]

    found = find_fraction(size, target)
    errors = [abs(params - target) for _, params in visited]
    assert 0 < found <= 1 and found == visited[errors.index(min(errors))][0]


def test_size_never_shrinks_with_rho_and_equals_the_formula():
    model = ResNet(10, width=8)
    full = sum(parameter.numel() for parameter in model.parameters())
    shapes = factorized_convs(model, EXAMPLE)
    sizes = [full - saved_parameters(shapes, index / 50) for index in range(51)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]
    factorize(
        model,
        {name: spatial_rank(shape, 0.1) for name, shape in shapes.items()},
        scheme="spatial",
        keep_dense=False,
    )
    assert sum(parameter.numel() for parameter in model.parameters()) == sizes[5]


def test_ranks_are_rounded_half_to_even_and_kept_in_bounds():
    square = torch.Size((2, 4, 5, 1))
    assert [spatial_rank(square, rho) for rho in (0.25, 0.35)] == [2, 4]  # 2.5 and 3.5
    assert spatial_rank(square, 0.0) == 1 and spatial_rank(square, 1.0) == 4
    assert (
        spatial_rank(torch.Size((512, 256, 3, 3)), 0.5)
        == spatial_rank(torch.Size((512, 256, 3, 3)), 1.0)
        == 768
    )


def method_on(model, **knobs):
    method = SpectralFrobenius(Settings(**knobs))
    method.ranks, method.rho = (
        {name: spatial_rank(shape, 0.2) for name, shape in factorized_convs(model, EXAMPLE).items()},
        0.2,
    )
    method._factorize(model, initialise=True)
    return method


def test_first_conv_classifier_and_shortcuts_are_untouched():
    torch.manual_seed(0)
    model = ResNet(10, width=8)
    dense = ("conv1.weight", "fc.weight")
    kept = {
        name: parameter
        for name, parameter in model.named_parameters()
        if "shortcut.0" in name or name in dense
    }
    values = {name: parameter.detach().clone() for name, parameter in kept.items()}
    method = method_on(model)
    after = dict(model.named_parameters())
    assert len(kept) == 5 and all(
        after[name] is parameter and torch.equal(parameter, values[name]) for name, parameter in kept.items()
    )
    decayed, free = method.param_groups(model, 1e-3)
    assert {id(parameter) for parameter in decayed["params"]} == {
        id(parameter) for parameter in kept.values()
    }
    assert (decayed["weight_decay"], free["weight_decay"]) == (1e-3, 0.0)


@pytest.mark.parametrize("decay_all", [False, True])
@pytest.mark.parametrize("frobenius_decay", [0.0, 1e-4])
def test_every_parameter_is_in_one_group_norms_included(decay_all, frobenius_decay):
    model = Vgg19(10, width=4)
    method = method_on(model, decay_all=decay_all, frobenius_decay=frobenius_decay)
    groups = method.param_groups(model, 1e-3)
    members = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(members) == sorted(id(parameter) for parameter in model.parameters())
    decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    norms = [
        parameter
        for module in model.modules()
        if isinstance(module, nn.BatchNorm2d)
        for parameter in module.parameters()
    ]
    assert len(norms) == 32 and {decay[id(parameter)] for parameter in norms} == {1e-3 if decay_all else 0.0}
    factors = [layer.first.weight for layer in low_rank_layers(model).values()]
    assert len(factors) == 15 and {decay[id(parameter)] for parameter in factors} == {
        0.0 if frobenius_decay else 1e-3
    }


def test_a_target_replaces_rho_and_is_reported(tmp_path):
    record = run(tmp_path / "one", rho=0.08, target_params=12_000)
    assert record.target["achieved"] == record.params_total == record.params_nonzero
    assert record.target["ratio"] == pytest.approx(1, abs=0.1) and record.switch_epoch == 0 and record.k == 1
    again = run(tmp_path / "two", rho=0.08, match=str(tmp_path / "one"))
    assert again.params_total == record.params_total and again.extra["rho"] == record.extra["rho"]


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"rho": 0.08, "target_params": 10}, "the nearest it can is 7,"),
        ({"rho": 0.08, "target_params": 10**9}, "the nearest it can is "),
        ({"rho": 0.08, "target_params": 12_000, "match": "x"}, "not two of them"),
        ({"rho": 0.0}, r"rho must be in \(0, 1\], not 0.0"),
        ({"frobenius_decay": -1.0}, "frobenius_decay must be .* not -1.0"),
    ],
)
def test_bad_input_is_refused_before_training(tmp_path, knobs, message):
    with pytest.raises(CuttlefishError, match=message):
        run(tmp_path, **knobs)
    assert not (tmp_path / "checkpoints").exists()


def test_models_without_convolutions_to_factorize_are_refused():
    with pytest.raises(CuttlefishError, match="no convolution to factorize.*depthwise"):
        factorized_convs(
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten()), EXAMPLE
        )
