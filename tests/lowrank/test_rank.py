"""Stable ranks against a float64 SVD, and the scaling rule against hand-worked cases."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cuttlefish.lowrank.rank import RankTracker, clamp_rank, full_rank, scaled_rank, stable_rank, stable_ranks


def oracle(weight):
    sigma = np.linalg.svd(weight.detach().double().flatten(1).numpy(), compute_uv=False)
    return float((sigma**2).sum() / sigma[0] ** 2) if sigma[0] > 0 else 0.0


def with_spectrum(rows, columns, sigma, dtype=torch.float32):
    generator = torch.Generator().manual_seed(rows * 1000 + columns)
    size = min(rows, columns)
    left = torch.linalg.qr(torch.randn(rows, size, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(columns, size, generator=generator, dtype=torch.float64)).Q
    return ((left * torch.as_tensor(sigma, dtype=torch.float64)) @ right.t()).to(dtype)


SHAPES = [
    (64, 64, 3, 3),
    (128, 64, 3, 3),
    (256, 128, 3, 3),
    (128, 128, 1, 1),
    (256, 256),
    (300, 300),
    (96, 768),
    (768, 96),
    (10, 512),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_initialisation(shape):
    torch.manual_seed(0)
    weight = nn.init.kaiming_normal_(torch.empty(shape))
    assert stable_rank(weight) == pytest.approx(oracle(weight), rel=1e-6)


@pytest.mark.parametrize("power", [0.2, 0.5, 1.0, 3.0])
def test_trained_spectra(power):
    weight = with_spectrum(256, 1152, np.arange(1, 257) ** -power)
    assert stable_rank(weight) == pytest.approx(oracle(weight), rel=1e-6)


@pytest.mark.parametrize("repeats", [2, 10, 60, 200])
def test_repeated_largest_singular_value(repeats):
    sigma = np.full(200, 0.5)
    sigma[:repeats] = 1.0
    weight = with_spectrum(200, 500, sigma)
    assert stable_rank(weight) == pytest.approx(oracle(weight), rel=2e-6)
    exact = with_spectrum(200, 500, sigma, torch.float64)
    assert stable_rank(exact) == pytest.approx((sigma**2).sum(), rel=1e-9)


@pytest.mark.parametrize("shape", [(1, 50), (50, 1), (1, 1), (33, 33), (32, 90), (40, 40, 1, 1)], ids=str)
def test_small_and_thin(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    assert stable_rank(weight) == pytest.approx(oracle(weight), rel=1e-6)


def test_rank_one_and_zero():
    outer = torch.outer(torch.randn(200), torch.randn(300))
    assert stable_rank(outer) == pytest.approx(1.0, rel=1e-6)
    assert stable_rank(torch.zeros(100, 80)) == 0.0


def test_not_a_number_is_not_hidden():
    weight = torch.randn(64, 64)
    weight[3, 3] = float("nan")
    assert math.isnan(stable_rank(weight))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 90), st.integers(1, 90), st.floats(1e-6, 1e6), st.integers(0, 10**6))
def test_bounds_and_scale_invariance(rows, columns, scale, seed):
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rank = stable_rank(weight)
    assert 1 - 1e-9 <= rank <= full_rank(weight) * (1 + 1e-9)
    assert stable_rank(weight * scale) == pytest.approx(rank, rel=1e-6)
    assert stable_rank(weight.t()) == pytest.approx(rank, rel=1e-6)


def test_many_at_once_equal_one_by_one():
    weights = [
        torch.randn(shape, generator=torch.Generator().manual_seed(2))
        for shape in [(64, 27), (100, 300), (5, 5)]
    ]
    assert stable_ranks(weights) == [stable_rank(weight) for weight in weights]
    assert stable_ranks([]) == []


def test_full_rank_unrolls_like_the_paper():
    assert full_rank(torch.empty(64, 3, 3, 3)) == 27
    assert full_rank(torch.empty(10, 512)) == 10


@pytest.mark.parametrize(
    ("rows", "columns", "beta"), [(512, 4608, 1.778), (256, 1152, 2.165), (768, 768, 4.0), (768, 3072, 2.25)]
)
def test_beta_of_a_random_matrix(rows, columns, beta):
    """β ≈ (1 + √(a/b))² for an i.i.d. a × b matrix, the edge of its spectrum."""
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    assert full_rank(weight) / stable_rank(weight) == pytest.approx(beta, rel=0.02)


def test_scaled_rank_rules():
    assert scaled_rank(289.7, 289.7, 512) == 512
    assert scaled_rank(100.0, 200.0, 512) == 256
    assert scaled_rank(100.01, 200.0, 512) == 257
    assert scaled_rank(400.0, 200.0, 512) == 512
    assert scaled_rank(0.0, 200.0, 512) == 1
    assert scaled_rank(20.9, 200.9, 512, floored=True) == math.ceil(20 * 512 / 200)
    assert scaled_rank(10.0, 200.0, 512, rank_floor=0.2) == 102
    assert scaled_rank(10.0, 200.0, 512, round_to=8) == 32
    assert clamp_rank(511, 512, round_to=8) == 512 and clamp_rank(9, 9, round_to=8) == 9


@pytest.mark.parametrize("full", [384, 768])
def test_initial_rank_is_full_in_spite_of_rounding(full):
    assert all(scaled_rank(float(s), float(s), full) == full for s in range(1, full))


def test_tracker_scales_by_its_own_beginning():
    layer = nn.Linear(64, 48)
    tracker = RankTracker(nn.Sequential(layer), ["0"])
    tracker.update()
    assert tracker.scaled_ranks() == {"0": 48}
    with torch.no_grad():
        layer.weight.copy_(torch.outer(torch.randn(48), torch.randn(64)))
    tracker.update()
    first, last = tracker.history["0"]
    assert tracker.scaled_ranks() == {"0": math.ceil(48 * last / first)}
    assert tracker.stable_ranks() == {"0": math.ceil(last)}
    assert tracker.rows()[0] | {"stable_rank": None} == {
        "epoch": 1, "layer": "0", "stable_rank": None, "scaled_rank": tracker.scaled_ranks()["0"], "full_rank": 48,
    }  # fmt: skip
