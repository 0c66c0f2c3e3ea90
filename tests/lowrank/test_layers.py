"""The low-rank layers against torch's dense convolution and matrix product, in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.layers import LowRankConv2d, LowRankLinear

F64 = torch.float64


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@st.composite
def geometries(draw):
    """Any legal geometry of nn.Conv2d for a small odd-sized image."""
    sides = st.sampled_from([1, 3, 5])
    kernel = draw(st.one_of(sides, st.tuples(sides, sides)))
    padding = draw(
        st.one_of(
            st.sampled_from(["same", "valid"]),
            st.integers(0, 2),
            st.tuples(st.integers(0, 2), st.integers(0, 2)),
        )
    )
    steps = st.integers(1, 3)
    return {
        "kernel_size": kernel,
        "padding": padding,
        "stride": 1 if padding == "same" else draw(st.one_of(steps, st.tuples(steps, steps))),
        "dilation": draw(st.one_of(st.integers(1, 2), st.tuples(st.integers(1, 2), st.integers(1, 2)))),
        "padding_mode": draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"])),
        "bias": draw(st.booleans()),
    }


@given(
    geometries(),
    st.sampled_from(["channel", "spatial"]),
    st.integers(1, 4),
    st.integers(9, 12),
    st.integers(9, 12),
)
@settings(deadline=None, max_examples=150)
def test_the_two_steps_are_one_convolution_of_the_merged_weight(geometry, scheme, rank, height, width):
    low_rank = LowRankConv2d(4, 5, rank=rank, scheme=scheme, dtype=F64, **geometry)
    dense = nn.Conv2d(4, 5, dtype=F64, **geometry)
    with torch.no_grad():
        dense.weight.copy_(low_rank.merged_weight())
        if geometry["bias"]:
            dense.bias.copy_(low_rank.second.bias)
    x = torch.randn(2, 4, height, width, dtype=F64)
    torch.testing.assert_close(low_rank(x), dense(x), rtol=0, atol=1e-10)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("scheme", ["channel", "spatial"])
def test_an_even_kernel_with_same_padding(scheme):
    low_rank = LowRankConv2d(3, 4, (4, 2), 3, padding="same", scheme=scheme, bias=False, dtype=F64)
    dense = nn.Conv2d(3, 4, (4, 2), padding="same", bias=False, dtype=F64)
    dense.weight.data = low_rank.merged_weight().detach()
    x = torch.randn(1, 3, 7, 8, dtype=F64)
    torch.testing.assert_close(low_rank(x), dense(x), rtol=0, atol=1e-10)


def test_a_linear_layer_on_three_dimensions():
    layer = LowRankLinear(6, 5, 3, dtype=F64)
    x = torch.randn(2, 7, 6, dtype=F64)
    torch.testing.assert_close(layer(x), x @ layer.merged_weight().T + layer.second.bias, rtol=0, atol=1e-12)
    assert torch.linalg.matrix_rank(layer.merged_weight()) == 3


def test_the_extra_bn_stands_between_the_factors():
    layer = LowRankConv2d(3, 5, 3, 2, extra_bn=True, dtype=F64)
    bn = nn.BatchNorm2d(2, dtype=F64)
    x = torch.randn(4, 3, 6, 6, dtype=F64)
    assert torch.equal(layer(x), layer.second(bn(layer.first(x))))
    assert torch.equal(layer.bn.running_mean, bn.running_mean)


def test_state_dict_keys():
    conv = ["first.weight", "second.weight"]
    assert list(LowRankConv2d(3, 5, 3, 2, bias=False).state_dict()) == conv
    assert list(LowRankConv2d(3, 5, 3, 2, scheme="spatial").state_dict()) == [*conv, "second.bias"]
    assert list(LowRankLinear(3, 5, 2).state_dict()) == [*conv, "second.bias"]
    with_bn = list(LowRankConv2d(3, 5, 3, 2, bias=False, extra_bn=True).state_dict())
    assert with_bn[0] == "first.weight" and with_bn[-1] == "second.weight"
    assert all(key.startswith("bn.") for key in with_bn[1:-1]) and "bn.running_var" in with_bn


def test_the_shapes_of_the_factors():
    channel = LowRankConv2d(3, 8, (5, 3), 2, stride=(2, 1), padding=(2, 1), dilation=(1, 2))
    assert channel.first.weight.shape == (2, 3, 5, 3) and channel.second.weight.shape == (8, 2, 1, 1)
    assert (
        channel.first.stride == (2, 1)
        and channel.first.padding == (2, 1)
        and channel.first.dilation == (1, 2)
    )
    assert channel.second.stride == (1, 1) and channel.second.padding == (0, 0)
    spatial = LowRankConv2d(3, 8, (5, 3), 2, stride=(2, 1), padding=(2, 1), scheme="spatial")
    assert spatial.first.weight.shape == (2, 3, 1, 3) and spatial.second.weight.shape == (8, 2, 5, 1)
    assert (
        spatial.first.padding == (0, 1)
        and spatial.second.padding == (2, 0)
        and spatial.second.stride == (2, 1)
    )


@pytest.mark.parametrize(
    "build",
    [
        lambda: LowRankConv2d(3, 4, (3, 5), 2),
        lambda: LowRankConv2d(3, 4, (3, 5), 2, scheme="spatial"),
        lambda: LowRankLinear(6, 5, 3),
    ],
)
def test_factors_and_shaped_are_inverse(build):
    layer = build()
    U, Vt = layer.factors()
    assert U.shape[1] == Vt.shape[0] == layer.rank
    second, first = layer.shaped(U, Vt)
    assert torch.equal(second, layer.second.weight) and torch.equal(first, layer.first.weight)


def test_dtype_and_device_are_passed_on():
    layer = LowRankConv2d(3, 4, 3, 2, extra_bn=True, device="meta", dtype=torch.bfloat16)
    assert all(p.is_meta and p.dtype == torch.bfloat16 for p in layer.parameters())


def test_repr_shows_the_rank():
    assert "rank=2, scheme=spatial" in repr(LowRankConv2d(3, 4, 3, 2, scheme="spatial"))
    assert "3, 4, rank=2" in repr(LowRankLinear(3, 4, 2))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: LowRankConv2d(3, 4, 3, 5),
            "Rank 5 was asked of a 4×3×3×3 weight; in the channel scheme it must be from 1 to 4",
        ),
        (
            lambda: LowRankConv2d(3, 4, 3, 10, scheme="spatial"),
            "Rank 10 .* in the spatial scheme it must be from 1 to 9",
        ),
        (lambda: LowRankLinear(3, 4, 0), "Rank 0 was asked of a 4×3 weight"),
        (
            lambda: LowRankConv2d(3, 4, 3, 2, scheme="tensor"),
            "scheme is 'tensor'; it must be one of channel, spatial",
        ),
        (
            lambda: LowRankConv2d(3, 4, 3, 2, scheme="spatial", extra_bn=True),
            "extra BN .* exists only in the channel scheme",
        ),
    ],
)
def test_bad_arguments_are_refused(build, message):
    with pytest.raises(CuttlefishError, match=message):
        build()


LAYERS = [
    (lambda: LowRankLinear(8, 6, 3), (2, 8)),
    (lambda: LowRankLinear(8, 6, 3, bias=False), (2, 5, 8)),
    (lambda: LowRankConv2d(3, 8, 3, 2, padding=1), (2, 3, 7, 7)),
    (lambda: LowRankConv2d(3, 8, (3, 5), 4, stride=2, dilation=2, scheme="spatial"), (2, 3, 19, 19)),
    (lambda: LowRankConv2d(3, 8, 1, 2, stride=2), (2, 3, 7, 7)),
]


@pytest.mark.parametrize(("build", "shape"), LAYERS)
def test_weight_and_bias_are_those_of_the_dense_layer(build, shape):
    """Models that read them (T5) get what the layer computes: their functional form gives the same output."""
    layer, x = build(), torch.randn(shape)
    if isinstance(layer, LowRankConv2d):
        expected = F.conv2d(
            x, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups
        )
    else:
        expected = F.linear(x, layer.weight, layer.bias)
        assert layer.weight.shape == (layer.out_features, layer.in_features)
    assert torch.allclose(layer(x), expected, atol=1e-5)
    names = {"first.weight", "second.weight"} | ({"second.bias"} if layer.bias is not None else set())
    assert set(layer.state_dict()) == set(dict(layer.named_parameters())) == names
    layer.weight.sum().backward()
    assert layer.first.weight.grad is not None and layer.second.weight.grad is not None


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    ("build", "shape"), [*LAYERS, (lambda: LowRankConv2d(3, 8, 3, 2, extra_bn=True), (2, 3, 7, 7))]
)
def test_scripted_and_exported_layers_compute_the_same(build, shape):
    layer, x = build().eval(), torch.randn(shape)
    assert torch.allclose(torch.jit.script(layer)(x), layer(x), atol=1e-6)
    assert torch.allclose(torch.export.export(layer, (x,)).module()(x), layer(x), atol=1e-6)
