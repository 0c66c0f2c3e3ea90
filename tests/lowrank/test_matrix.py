"""Unrolling a weight into a matrix and folding it back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.matrix import SCHEMES, fold, gram, matrix_shape, unroll

SHAPES = st.tuples(*[st.integers(1, 4)] * 4)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@given(SHAPES)
@settings(deadline=None, max_examples=30)
def test_every_entry_lands_where_the_formula_says(shape):
    weight = torch.arange(torch.Size(shape).numel(), dtype=torch.float64).reshape(shape)
    channel, spatial = unroll(weight), unroll(weight, "spatial")
    _, in_channels, height, width = shape
    for o, i, a, b in torch.cartesian_prod(*[torch.arange(n) for n in shape]).tolist():
        assert channel[o, (i * height + a) * width + b] == weight[o, i, a, b]
        assert spatial[o * height + a, i * width + b] == weight[o, i, a, b]
    assert channel.numel() == spatial.numel() == weight.numel()


@given(SHAPES, st.sampled_from(SCHEMES), st.booleans())
@settings(deadline=None, max_examples=30)
def test_fold_undoes_unroll_in_either_memory_format(shape, scheme, channels_last):
    weight = torch.randn(shape)
    if channels_last:
        weight = weight.to(memory_format=torch.channels_last)
    matrix = unroll(weight, scheme)
    assert matrix.shape == matrix_shape(shape, scheme)
    assert torch.equal(fold(matrix, shape, scheme), weight)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_linear_weight_is_its_own_matrix(scheme):
    weight = torch.randn(3, 5)
    assert torch.equal(unroll(weight, scheme), weight)
    assert torch.equal(fold(weight, weight.shape, scheme), weight)


def test_naive_reshape_is_not_the_spatial_matricisation():
    """A separable kernel has spatial rank 1; reshaped without moving kh beside out, it has not."""
    u, v = torch.randn(4, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    separable = torch.einsum("oa,ib->oiab", u, v)
    assert torch.linalg.matrix_rank(unroll(separable, "spatial")) == 1
    assert torch.linalg.matrix_rank(separable.reshape(4 * 3, 5 * 3)) > 1


@pytest.mark.parametrize("shape", [(1, 4), (5, 5), (70, 30), (130, 200), (300, 129)], ids=str)
def test_the_smaller_gram_matrix(shape):
    matrix = torch.randn(shape, dtype=torch.float64)
    whole = matrix @ matrix.T if shape[0] <= shape[1] else matrix.T @ matrix
    torch.testing.assert_close(gram(matrix), whole)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(CuttlefishError, match="'tucker'; it must be one of channel, spatial"):
        unroll(torch.randn(2, 2, 3, 3), "tucker")
