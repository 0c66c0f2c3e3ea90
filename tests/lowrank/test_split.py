"""Splitting and merging: exact at full rank, optimal below it, everything else about the layer preserved."""

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank import matrix as matrices
from cuttlefish.lowrank.layers import LowRankConv2d, LowRankLinear
from cuttlefish.lowrank.matrix import truncated_svd, unroll
from cuttlefish.lowrank.split import merge_layer, split_layer

F64 = torch.float64
SCHEMES = ["channel", "spatial"]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def full_rank(module, scheme):
    return min(unroll(module.weight, scheme).shape)


@st.composite
def convolutions(draw):
    padding = draw(st.sampled_from(["same", "valid", 0, 1, (2, 1)]))
    return nn.Conv2d(
        draw(st.integers(1, 4)),
        draw(st.integers(1, 5)),
        draw(st.sampled_from([1, 3, 5, (1, 3), (5, 3)])),
        stride=1 if padding == "same" else draw(st.sampled_from([1, 2, 3, (2, 1)])),
        padding=padding,
        dilation=draw(st.sampled_from([1, 2, (1, 2)])),
        padding_mode=draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"])),
        bias=draw(st.booleans()),
        dtype=F64,
    )


@given(convolutions(), st.sampled_from(SCHEMES), st.sampled_from([(9, 9), (9, 12), (11, 10)]))
@settings(deadline=None, max_examples=120)
def test_at_full_rank_the_split_layer_computes_the_same(conv, scheme, size):
    low_rank = split_layer(conv, full_rank(conv, scheme), scheme=scheme)
    x = torch.randn(2, conv.in_channels, *size, dtype=F64)
    torch.testing.assert_close(low_rank(x), conv(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("shape", [(6, 5), (5, 6), (4, 4)])
def test_at_full_rank_a_linear_layer_computes_the_same(shape):
    linear = nn.Linear(*shape, dtype=F64)
    low_rank = split_layer(linear, min(shape), scheme="spatial")
    assert isinstance(low_rank, LowRankLinear)
    x = torch.randn(2, 3, shape[0], dtype=F64)
    torch.testing.assert_close(low_rank(x), linear(x), rtol=0, atol=1e-10)


@given(st.integers(1, 12), st.integers(1, 12), st.data())
@settings(deadline=None, max_examples=50)
def test_the_error_is_the_energy_of_the_dropped_singular_values(m, n, data):
    rank = data.draw(st.integers(1, min(m, n)))
    matrix = torch.randn(m, n, dtype=F64)
    G, F = truncated_svd(matrix, rank)
    sigma = scipy.linalg.svdvals(matrix.numpy())
    np.testing.assert_allclose(
        (matrix - G @ F).square().sum(), np.square(sigma[rank:]).sum(), atol=1e-12 * m * n
    )
    for gram in (G.T @ G, F @ F.T):  # balanced: each factor holds √σ
        np.testing.assert_allclose(gram, np.diag(sigma[:rank]), atol=1e-12 * m * n)
    np.testing.assert_allclose(
        (G.square().sum() + F.square().sum()) / 2, sigma[:rank].sum(), atol=1e-12 * m * n
    )


def spectrum(name, count):
    index = torch.arange(count, dtype=F64)
    return {
        "random": None,
        "trained": torch.exp(-6 * index / count),
        "slow": (1 + index) ** -0.5,
        "steep": torch.logspace(0, -12, count, dtype=F64),
        "deficient": (5 - index).clamp_min(0),
        "flat": torch.ones(count, dtype=F64),
        "pairs": torch.exp(-3 * (index // 2) / count),
        "spike": 1 + 49.0 * (index == 0) + 1e-3 * index / count,
    }[name]


def matrix_of(m, n, sigma):
    if sigma is None:
        return torch.randn(m, n, dtype=F64)
    count = len(sigma)
    left, right = (torch.linalg.qr(torch.randn(size, count, dtype=F64)).Q for size in (m, n))
    return (left * sigma) @ right.T


@pytest.mark.parametrize("scale", [1e-160, 1e-30, 1.0, 1e18, 1e200])
@pytest.mark.parametrize("name", ["random", "trained", "slow", "steep", "deficient"])
@pytest.mark.parametrize("shape", [(60, 200), (200, 60), (70, 70)], ids=str)
def test_eigenvectors_give_what_the_full_svd_gives(shape, name, scale):
    matrix = matrix_of(*shape, spectrum(name, min(shape))) * scale
    for rank in (1, 5, 20):
        fast, exact = truncated_svd(matrix, rank), truncated_svd(matrix, rank, exact=True)
        for ours, theirs in zip(fast, exact, strict=True):
            assert (ours.norm() / theirs.norm()).item() == pytest.approx(1, abs=1e-10)
        error = torch.dist(fast[0] / scale @ fast[1], exact[0] / scale @ exact[1])
        assert error / (matrix / scale).norm() < 1e-10
        gram = fast[0].T / scale @ fast[0]
        torch.testing.assert_close(gram, torch.diag(gram.diag()), rtol=0, atol=1e-9 * gram.max().item())


def test_without_a_gap_the_error_is_the_least_possible():
    matrix = matrix_of(80, 50, spectrum("flat", 50))
    U, Vt = truncated_svd(matrix, 20)
    assert (matrix - U @ Vt).square().sum().item() == pytest.approx(30, rel=1e-12)


def test_only_ill_conditioned_matrices_take_the_full_svd(monkeypatch):
    calls, svd = [], torch.linalg.svd
    monkeypatch.setattr(torch.linalg, "svd", lambda *words, **named: calls.append(1) or svd(*words, **named))
    truncated_svd(matrix_of(50, 60, spectrum("trained", 50)), 25)
    assert not calls
    truncated_svd(matrix_of(50, 60, spectrum("steep", 50)), 25)
    truncated_svd(torch.zeros(5, 6), 2)
    split_layer(nn.Linear(5, 6), 2, exact=True)
    assert len(calls) == 3


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e18])
@pytest.mark.parametrize(
    "name", ["random", "trained", "slow", "steep", "deficient", "flat", "pairs", "spike"]
)
@pytest.mark.parametrize("shape", [(150, 400), (400, 150), (200, 200)], ids=str)
def test_float32_weights_are_approximated_as_well_as_possible(shape, name, scale):
    """Whether float32's eigenvectors can be refined or not, and they are where their values are apart."""
    matrix = (matrix_of(*shape, spectrum(name, min(shape))) * scale).float()
    exact, full = matrix.double() / scale, min(shape)
    sigma = torch.linalg.svdvals(exact)
    for rank in (1, full // 4, full - 5, full):
        U, Vt = (factor / scale**0.5 for factor in matrices._decomposed(matrix, rank))
        least = sigma[rank:].square().sum()
        assert (exact - U @ Vt).square().sum() <= least * (1 + 1e-11) + 1e-22 * exact.square().sum()
        for overlaps in (U.T @ U, Vt @ Vt.T):
            torch.testing.assert_close(overlaps, sigma[:rank].diag(), rtol=0, atol=1e-6 * sigma[0].item())
    refined = matrices._refined(matrices.gram(matrix.double()), full // 4)
    assert (refined is None) == (name in ("steep", "deficient", "flat", "pairs", "spike"))


def test_a_default_device_changes_nothing():
    layer = nn.Linear(200, 150)
    expected = split_layer(layer, 20)
    torch.set_default_device("meta")
    try:
        split = split_layer(layer, 20)
    finally:
        torch.set_default_device(None)
    assert all(torch.equal(a, b) for a, b in zip(split.parameters(), expected.parameters(), strict=True))


def test_refined_eigenvectors_are_those_of_float64():
    products = matrices.gram(matrix_of(300, 200, spectrum("trained", 200)))
    energies, V = matrices._refined(products, 30)
    expected, vectors = matrices._top_eigenvectors(products, 30)
    torch.testing.assert_close(energies, expected, rtol=1e-11, atol=0)
    torch.testing.assert_close(V.T @ V, torch.eye(30, dtype=F64), rtol=0, atol=1e-11)
    torch.testing.assert_close(V @ V.T, vectors @ vectors.T, rtol=0, atol=1e-8)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_split_convolution_is_the_best_in_its_scheme(scheme):
    conv = nn.Conv2d(4, 6, 3, dtype=F64)
    low_rank = split_layer(conv, 3, scheme=scheme)
    sigma = scipy.linalg.svdvals(unroll(conv.weight.detach(), scheme).numpy())
    error = (low_rank.merged_weight() - conv.weight).square().sum()
    assert error.item() == pytest.approx(np.square(sigma[3:]).sum(), abs=1e-12)


def test_float32_weights_are_decomposed_in_float64():
    """Values down to 1e-6 of the largest: float32 arithmetic loses them, the factors' rounding does not."""
    Q, _ = torch.linalg.qr(torch.randn(40, 40, dtype=F64))
    P, _ = torch.linalg.qr(torch.randn(40, 40, dtype=F64))
    matrix = (Q * torch.logspace(0, -6, 40, dtype=F64) @ P).float()
    G, F = truncated_svd(matrix, 40)
    assert G.dtype == F.dtype == torch.float32
    expected = scipy.linalg.svdvals(matrix.double().numpy())
    np.testing.assert_allclose(G.double().square().sum(0), expected, rtol=1e-6)


def test_a_rank_deficient_matrix_splits():
    matrix = torch.ones(4, 6)
    G, F = truncated_svd(matrix, 3)
    torch.testing.assert_close(G @ F, matrix)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_dtype_flags_and_mode_are_preserved(dtype, scheme):
    conv = nn.Conv2d(3, 4, 3, dtype=dtype).eval()
    conv.weight.requires_grad_(False)
    low_rank = split_layer(conv, 2, scheme=scheme)
    assert {p.dtype for p in low_rank.parameters()} == {dtype}
    assert not low_rank.training and not low_rank.second.training
    assert [
        p.requires_grad for p in (low_rank.first.weight, low_rank.second.weight, low_rank.second.bias)
    ] == [False, False, True]
    assert split_layer(nn.Linear(3, 4), 2).training


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kernel", [1, 3])
def test_the_memory_format_is_preserved(scheme, kernel):
    for memory_format in (torch.channels_last, torch.contiguous_format):
        conv = nn.Conv2d(4, 6, kernel).to(memory_format=memory_format)
        low_rank = split_layer(conv, 3, scheme=scheme)
        for factor in (low_rank.first, low_rank.second):
            assert (
                factor.weight.stride()
                == torch.empty_like(factor.weight, memory_format=memory_format).stride()
            )
        assert merge_layer(low_rank).weight.stride() == conv.weight.stride()


def test_the_bias_is_a_copy():
    conv = nn.Conv2d(3, 4, 3)
    low_rank = split_layer(conv, 2)
    assert torch.equal(low_rank.second.bias, conv.bias)
    assert low_rank.second.bias is not conv.bias and low_rank.second.bias.data_ptr() != conv.bias.data_ptr()


def test_splitting_draws_no_random_numbers_and_repeats_exactly():
    conv, state = nn.Conv2d(3, 4, 3), torch.get_rng_state()
    first, again = split_layer(conv, 2, extra_bn=True), split_layer(conv, 2, extra_bn=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first.state_dict()[key], value) for key, value in again.state_dict().items())


def test_without_initialisation_zeros_take_a_state():
    conv = nn.Conv2d(3, 4, 3)
    trained = split_layer(conv, 2, extra_bn=True)
    empty = split_layer(conv, 2, extra_bn=True, initialise=False)
    assert not empty.first.weight.any() and not empty.second.weight.any()
    empty.load_state_dict(trained.state_dict())
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(empty(x), trained(x))


def test_a_structure_without_memory():
    low_rank = split_layer(nn.Conv2d(3, 4, 3, device="meta"), 2, extra_bn=True, initialise=False)
    assert all(p.is_meta for p in low_rank.parameters())


def test_a_fresh_extra_bn_is_the_identity_on_running_statistics():
    bn = split_layer(nn.Conv2d(3, 4, 3), 2, extra_bn=True).bn
    assert torch.equal(bn.weight, torch.ones(2)) and torch.equal(bn.running_var, torch.ones(2))
    assert not bn.bias.any() and not bn.running_mean.any() and bn.num_batches_tracked == 0


@given(convolutions(), st.sampled_from(SCHEMES), st.integers(1, 5))
@settings(deadline=None, max_examples=60)
def test_merging_computes_the_same_at_any_rank(conv, scheme, rank):
    low_rank = split_layer(conv, min(rank, full_rank(conv, scheme)), scheme=scheme)
    dense = merge_layer(low_rank)
    assert isinstance(dense, nn.Conv2d)
    x = torch.randn(2, conv.in_channels, 9, 11, dtype=F64)
    torch.testing.assert_close(dense(x), low_rank(x), rtol=0, atol=1e-10)


def test_merging_undoes_a_full_rank_split():
    for module in (nn.Conv2d(3, 4, 3, stride=2, padding="valid"), nn.Linear(6, 5, bias=False)):
        dense = merge_layer(split_layer(module, full_rank(module, "channel")))
        assert repr(dense) == repr(module)
        torch.testing.assert_close(dense.state_dict(), module.state_dict())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
def test_merging_folds_an_extra_bn_exactly_in_eval_mode(bias, padding_mode):
    layer = LowRankConv2d(
        3, 5, 3, 4, padding=1, stride=2, padding_mode=padding_mode, bias=bias, extra_bn=True, dtype=F64
    )
    for tensor in (layer.bn.weight, layer.bn.bias, layer.bn.running_mean, layer.bn.running_var):
        tensor.data.uniform_(0.5, 2)
    layer.eval()
    dense = merge_layer(layer)
    x = torch.randn(2, 3, 7, 7, dtype=F64)
    torch.testing.assert_close(dense(x), layer(x), rtol=0, atol=1e-10)
    assert dense.bias is not None and not dense.training


def test_merging_keeps_what_is_frozen_frozen():
    low_rank = split_layer(nn.Linear(3, 4).requires_grad_(False), 2)
    assert not any(p.requires_grad for p in merge_layer(low_rank).parameters())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: truncated_svd(torch.randn(3, 5), 4),
            "Rank 4 was asked of a 3×5 matrix; it must be from 1 to 3",
        ),
        (lambda: truncated_svd(torch.tensor([[1.0, float("nan")]]), 1), "holds NaN or infinite values"),
        (
            lambda: split_layer(nn.Conv2d(4, 4, 3, groups=2), 1),
            "Only nn.Conv2d without groups and nn.Linear can be split, not Conv2d",
        ),
        (lambda: split_layer(nn.BatchNorm2d(4), 1), "not BatchNorm2d"),
        (lambda: split_layer(nn.Linear(4, 4), 5), "Rank 5 was asked of a 4×4 weight"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(CuttlefishError, match=message):
        call()


@pytest.mark.parametrize("bias", [False, True])
def test_a_first_bias_starts_at_zero_and_merges_exactly(bias):
    dense = nn.Linear(5, 4, bias=bias, dtype=F64)
    layer = split_layer(dense, 3, first_bias=True)
    assert not layer.first.bias.any() and layer.first.bias.requires_grad
    nn.init.normal_(layer.first.bias)
    x = torch.randn(7, 5, dtype=F64)
    torch.testing.assert_close(merge_layer(layer)(x), layer(x))
