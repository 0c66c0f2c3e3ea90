"""Stable ranks against a float64 SVD, and the scaling rule against hand-worked cases."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cuttlefish import CuttlefishError
from cuttlefish.lowrank.rank import (
    RankTracker,
    clamp_rank,
    full_rank,
    scaled_rank,
    stable,
    stable_rank,
    stable_ranks,
)
from cuttlefish.lowrank.rank.measures import effective_rank, energy_rank


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


@pytest.mark.parametrize("gap", [1e-2, 1e-4, 3e-6])
def test_the_two_largest_singular_values_are_close(gap):
    sigma = np.linspace(0.9, 0.1, 200)
    sigma[:2] = 1, 1 - gap
    weight = with_spectrum(200, 500, sigma)
    assert stable_rank(weight) == pytest.approx(oracle(weight), rel=1e-6)


STRUCTURED = {
    "constant": lambda: torch.full((400, 3000), 0.1),  # rounding errors of equal sums all go one way
    "identity": lambda: torch.eye(200),
    "diagonal": lambda: torch.linspace(1, 2, 200).diag(),
    "one row": lambda: torch.cat([torch.randn(1, 300), torch.zeros(199, 300)]),
    "blocks": lambda: torch.block_diag(torch.randn(150, 150), 1.02 * torch.randn(150, 150)),
    "positive": lambda: torch.rand(200, 900),
    "heavy tails": lambda: torch.randn(200, 300) ** 5,
    "bfloat16": lambda: torch.randn(200, 300).bfloat16(),
}


@pytest.mark.parametrize("name", STRUCTURED)
def test_structured_matrices(name):
    torch.manual_seed(0)
    weight = STRUCTURED[name]()
    assert stable_rank(weight) == pytest.approx(oracle(weight), rel=1e-6)


def test_only_what_has_no_gap_takes_the_gram_matrix(monkeypatch):
    taken, by_gram = [], stable._by_gram
    monkeypatch.setattr(stable, "_by_gram", lambda matrix: taken.append(1) or by_gram(matrix))
    stable_rank(with_spectrum(200, 500, np.arange(1, 201) ** -0.5))
    assert not taken
    crowded = with_spectrum(400, 500, 1 - 1e-3 * np.linspace(0, 1, 400) ** 2)
    assert stable_rank(crowded) == pytest.approx(oracle(crowded), rel=1e-6)
    stable_rank(torch.randn(64, 500))
    assert len(taken) == 2


def test_measuring_draws_no_random_numbers_and_repeats_exactly():
    weight, state = torch.randn(200, 64, 3, 3), torch.get_rng_state()
    assert stable_rank(weight) == stable_rank(weight)
    assert torch.equal(torch.get_rng_state(), state)
    last = weight.to(memory_format=torch.channels_last)
    assert stable_rank(last) == pytest.approx(stable_rank(weight), rel=1e-6)


def test_rank_one_and_zero():
    outer = torch.outer(torch.randn(200), torch.randn(300))
    assert stable_rank(outer) == pytest.approx(1.0, rel=1e-6)
    assert stable_rank(torch.zeros(100, 80)) == 0.0


def test_a_vector_has_no_rank():
    with pytest.raises(CuttlefishError, match="shape .5. is no matrix"):
        stable_rank(torch.randn(5))


def test_not_a_number_is_not_hidden():
    weight = torch.randn(64, 64)
    weight[3, 3] = float("nan")
    assert math.isnan(stable_rank(weight))


def test_one_bad_weight_leaves_the_others_their_ranks():
    good, bad = torch.randn(40, 50), torch.randn(40, 50)
    bad[0, 0] = float("inf")
    ranks = stable_ranks([bad, good, torch.zeros(40, 50)])
    assert math.isnan(ranks[0]) and ranks[1:] == [stable_rank(good), 0.0]


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e-12, 1.0, 1e9, 1e18])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(96, 200), (20, 30)], ids=str)
def test_exact_at_any_scale(scale, dtype, shape):
    weight = (torch.randn(shape, generator=torch.Generator().manual_seed(4)).double() * scale).to(dtype)
    assert stable_rank(weight) == pytest.approx(oracle(weight.double() / scale), rel=1e-6)


def test_a_default_device_changes_nothing():
    weight = torch.randn(64, 80, generator=torch.Generator().manual_seed(5))
    ranks = stable_rank(weight), effective_rank(weight), energy_rank(weight)
    torch.set_default_device("meta")
    try:
        assert (stable_rank(weight), effective_rank(weight), energy_rank(weight)) == ranks
    finally:
        torch.set_default_device(None)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e18])
@pytest.mark.parametrize("power", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("shape", [(64, 200), (90, 30)], ids=str)
def test_other_measures_against_a_float64_svd(shape, power, scale):
    weight = with_spectrum(*shape, np.arange(1, min(shape) + 1) ** -power) * scale
    sigma = np.linalg.svd(weight.double().numpy() / scale, compute_uv=False)
    shares = sigma / sigma.sum()
    assert effective_rank(weight) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-6)
    for share in (0.5, 0.9, 0.97):
        kept = np.cumsum(sigma**2) / (sigma**2).sum()
        assert energy_rank(weight, share) == np.argmax(kept >= share) + 1


@pytest.mark.parametrize("measure", [effective_rank, energy_rank])
def test_other_measures_of_odd_matrices(measure):
    assert measure(torch.zeros(5, 8)) == 0
    assert measure(torch.outer(torch.randn(5), torch.randn(8))) == pytest.approx(1)
    assert measure(torch.eye(6)) == pytest.approx(6)
    assert math.isnan(measure(torch.full((3, 3), float("nan"))))


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
        "epoch": 1, "layer": "0", "stable_rank": None, "scaled_rank": tracker.scaled_ranks()["0"],
        "full_rank": 48, "metric": "stable",
    }  # fmt: skip


def tracked(weight, **options):
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight = nn.Parameter(weight)
    return layer, RankTracker(nn.Sequential(layer), ["0"], **options)


@pytest.mark.parametrize(
    ("measure", "name"), [("entropy", "entropy"), (energy_rank, "energy_rank"), (torch.trace, "trace")]
)
def test_tracker_follows_any_measure(measure, name):
    weight = torch.randn(20, 30, generator=torch.Generator().manual_seed(6)).abs()
    layer, tracker = tracked(weight, measure=measure, beta="initial")
    function = effective_rank if measure == "entropy" else measure
    assert tracker.update() == {"0": pytest.approx(float(function(weight)))}
    assert tracker.metric == tracker.rows()[0]["metric"] == name
    assert tracker.scaled_ranks() == {"0": 20}, "β is the measure's own"
    with torch.no_grad():
        layer.weight.copy_(with_spectrum(20, 30, np.arange(1, 21) ** -1.0).abs())
    tracker.update()
    first, last = tracker.history["0"]
    assert tracker.scaled_ranks() == {"0": min(20, math.ceil(20 * last / first))}


def test_an_unknown_measure_is_refused():
    with pytest.raises(
        CuttlefishError, match="'nuclear' is unknown; it is stable, entropy, energy or a function"
    ):
        tracked(torch.randn(3, 3), measure="nuclear")


def test_tracker_measures_what_the_model_has_now():
    model = nn.Sequential(nn.Linear(30, 20))
    tracker = RankTracker(model, ["0"])
    tracker.update()
    other = {name: torch.randn_like(value) for name, value in model.state_dict().items()}
    model.load_state_dict(other, assign=True)
    assert tracker.update()["0"] == pytest.approx(oracle(other["0.weight"]), rel=1e-6)
    model.to(torch.float64)[0].weight.data = torch.eye(20, 30, dtype=torch.float64)
    assert tracker.update()["0"] == pytest.approx(20)
    model[0] = nn.Linear(30, 20)
    assert tracker.update()["0"] == pytest.approx(oracle(model[0].weight), rel=1e-6)
    model[0] = nn.Linear(20, 30)
    with pytest.raises(CuttlefishError, match="Layer '0' has another shape"):
        tracker.update()
    model[0] = nn.ReLU()
    with pytest.raises(CuttlefishError, match="no layer '0' with a weight"):
        tracker.update()


def test_tracker_names_the_layer_that_diverged():
    model = nn.Sequential(*(nn.Linear(40, 40) for _ in range(3)))
    tracker = RankTracker(model, ["0", "1", "2"])
    tracker.update()
    with torch.no_grad():
        model[1].weight[3, 4] = float("nan")
    with pytest.raises(CuttlefishError, match="of layer '1' holds NaN or infinite values before epoch 1"):
        tracker.update()
    assert [len(values) for values in tracker.history.values()] == [1, 1, 1]


@pytest.mark.parametrize("shape", [(64, 64), (64, 256), (48, 16)], ids=str)
@pytest.mark.parametrize("floored", [False, True])
def test_a_layer_that_starts_at_zero_is_scaled_as_a_random_one(shape, floored):
    """Fixup and adaLN-Zero. The oracle is β ≈ (1 + √(a/b))², the edge of a random matrix's spectrum."""
    layer, tracker = tracked(torch.zeros(shape))
    tracker.update()
    with torch.no_grad():
        layer.weight.copy_(with_spectrum(*shape, [1.0] * 5 + [0.0] * (min(shape) - 5)))
    tracker.update()
    beta = (1 + math.sqrt(min(shape) / max(shape))) ** 2
    assert tracker.scaled_ranks(floored=floored)["0"] == pytest.approx(5 * beta, rel=0.25)


def test_a_zero_beginning_without_a_shape_counts_as_square():
    assert scaled_rank(2.5, 0.0, 64) == 10 and scaled_rank(2.5, 0.0, 64, floored=True) == 8


def test_tracker_measures_the_matrix_of_the_scheme():
    conv = nn.Conv2d(8, 64, 3)
    tracker = RankTracker(nn.Sequential(conv), ["0"], scheme="spatial")
    matrix = conv.weight.detach().permute(0, 2, 1, 3).reshape(64 * 3, 8 * 3)
    assert tracker.full == {"0": 24} and tracker.update()["0"] == pytest.approx(oracle(matrix), rel=1e-6)


@pytest.mark.parametrize("shape", [(), (4,), (0, 4), (4, 0)])
def test_what_is_no_matrix_has_no_stable_rank(shape):
    with pytest.raises(CuttlefishError, match="no matrix that has a stable rank"):
        stable_rank(torch.zeros(shape))
