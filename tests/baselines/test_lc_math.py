"""LC's mathematics: the C step against brute force, multipliers and penalty, and the price that gives a
size."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.lc.c_step import (
    Layer,
    alpha_for,
    c_step,
    compressed,
    learned_rank,
    next_multipliers,
    penalty_shift,
    relative_errors,
    shifted,
    spectrum,
)
from baselines.lc.plan import mu_schedule
from cuttlefish.errors import CuttlefishError


def matrix(m: int, n: int, seed: int = 0, rank: int | None = None) -> torch.Tensor:
    """float64, with singular values that fall geometrically, so that every threshold falls between two of
    them."""
    generator = torch.Generator().manual_seed(seed)
    k = min(m, n) if rank is None else rank
    left = torch.linalg.qr(torch.randn(m, k, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(n, k, generator=generator, dtype=torch.float64)).Q
    values = 3 * 0.7 ** (
        torch.arange(k, dtype=torch.float64) + torch.rand(k, generator=generator, dtype=torch.float64) / 2
    )
    return left * values @ right.T


shapes = st.tuples(st.integers(1, 7), st.integers(1, 9))
problems = st.fixed_dictionaries(
    {
        "mu": st.floats(1e-3, 50),
        "alpha": st.floats(1e-5, 1.0),
        "multiplier": st.sampled_from([1.0, 4.0, 64.0]),
        "normalize": st.booleans(),
    }
)


def objective(A, X, rank, *, mu, alpha, multiplier, normalize) -> float:
    """What the C step minimises, written out."""
    scale = float((A**2).sum()) if normalize else 1.0
    return alpha * rank * sum(A.shape) * multiplier + mu / 2 * float(((A - X) ** 2).sum()) / scale


# The C step


@settings(deadline=None, max_examples=30)
@given(shapes, problems, st.integers(0, 99))
def test_the_c_step_is_optimal_over_ranks_and_matrices(shape, problem, seed):
    A = matrix(*shape, seed)
    found = c_step(A, **problem)
    best = objective(A, found.delta, found.rank, **problem)
    U, S, V = torch.linalg.svd(A, full_matrices=False)
    generator = torch.Generator().manual_seed(seed)
    for rank in range(len(S) + 1):
        truncated = U[:, :rank] * S[:rank] @ V[:rank]
        assert objective(A, truncated, rank, **problem) >= best * (1 - 1e-9) - 1e-12
        left, right = (torch.randn(shape[side], rank, generator=generator, dtype=A.dtype) for side in (0, 1))
        for size in (1e-3, 1.0):
            other = (U[:, :rank] * S[:rank] + size * left) @ (V[:rank] + size * right.T)
            assert objective(A, other, rank, **problem) >= best * (1 - 1e-9) - 1e-12


@settings(deadline=None, max_examples=30)
@given(shapes, problems, st.integers(0, 99), st.floats(1.01, 5))
def test_the_rank_grows_with_mu_and_falls_with_every_price(shape, problem, seed, factor):
    A = matrix(*shape, seed)
    squares = torch.linalg.svdvals(A) ** 2
    scale = float(squares.sum()) if problem["normalize"] else 1.0
    price = problem["alpha"] * sum(shape) * problem["multiplier"]
    rank = c_step(A, **problem).rank
    assert rank == int((problem["mu"] * squares / (2 * scale) > price).sum())
    assert c_step(A, **{**problem, "mu": problem["mu"] * factor}).rank >= rank
    assert c_step(A, **{**problem, "alpha": problem["alpha"] * factor}).rank <= rank
    assert c_step(A, **{**problem, "multiplier": problem["multiplier"] * factor}).rank <= rank


def test_ties_go_to_the_smaller_rank():
    A = torch.diag(torch.tensor([4.0, 2.0, 2.0, 1.0], dtype=torch.float64))
    exactly = 0.5 * 4 / 8  # mu s^2 / 2 = alpha (m + n) at s = 2, in numbers that floats hold exactly
    assert c_step(A, mu=1.0, alpha=exactly, normalize=False).rank == 1
    assert c_step(A, mu=1.0, alpha=exactly * (1 - 1e-12), normalize=False).rank == 3


@settings(deadline=None, max_examples=25)
@given(shapes, problems, st.integers(0, 99), st.sampled_from([-2.0, 0.25, 8.0]))
def test_scaling_a_matrix_scales_alpha_unless_normalized(shape, problem, seed, t):
    A = matrix(*shape, seed)
    rank = c_step(A, **problem).rank
    alpha = problem["alpha"] if problem["normalize"] else problem["alpha"] * t * t
    assert c_step(t * A, **{**problem, "alpha": alpha}).rank == rank


@settings(deadline=None, max_examples=25)
@given(shapes, problems, st.integers(0, 99))
def test_delta_is_an_orthogonal_projection_and_a_fixed_point(shape, problem, seed):
    A = matrix(*shape, seed)
    rank, delta = c_step(A, **problem)
    energy = float((A**2).sum())
    assert delta.shape == A.shape and (rank == 0 or torch.linalg.matrix_rank(delta) == rank)
    assert float(((A - delta) * delta).sum()) == pytest.approx(0, abs=1e-12 * energy)
    assert float((delta**2).sum() + ((A - delta) ** 2).sum()) == pytest.approx(energy, rel=1e-12)
    again = c_step(delta, **problem)
    assert again.rank == rank
    torch.testing.assert_close(again.delta, delta, atol=1e-12, rtol=0)


def test_edges_of_alpha_and_mu_and_a_zero_matrix():
    A = matrix(5, 8)
    assert c_step(A, mu=0.0, alpha=1e-9).rank == 0 and not c_step(A, mu=0.0, alpha=1e-9).delta.any()
    assert c_step(A, mu=0.0, alpha=0.0).rank == 0
    full = c_step(A, mu=1.0, alpha=0.0)
    assert full.rank == 5
    torch.testing.assert_close(full.delta, A)
    assert c_step(matrix(6, 9, rank=2), mu=1.0, alpha=0.0).rank == 2  # noise of a decomposition is no rank
    for normalize in (True, False):
        nothing = c_step(torch.zeros(4, 6), mu=1.0, alpha=0.0, normalize=normalize)
        assert nothing.rank == 0 and not nothing.delta.any()


def test_a_layer_survives_from_the_least_mu_on():
    A = matrix(6, 10)
    alpha = 1e-3
    least = 2 * alpha * 16 * float((A**2).sum()) / float(torch.linalg.svdvals(A)[0]) ** 2
    assert c_step(A, mu=least * 0.999, alpha=alpha).rank == 0
    assert c_step(A, mu=least * 1.001, alpha=alpha).rank >= 1


@pytest.mark.parametrize("shape", [(6, 40), (40, 6)])
def test_float32_weights_keep_their_type_and_get_the_svd_s_delta(shape):
    A = matrix(*shape).float()
    rank, delta = c_step(A, mu=1.0, alpha=5e-4)
    U, S, V = torch.linalg.svd(A.double(), full_matrices=False)
    assert delta.dtype == torch.float32 and 0 < rank < 6
    torch.testing.assert_close(delta.double(), U[:, :rank] * S[:rank] @ V[:rank], atol=1e-6, rtol=0)


def test_broken_weights_end_in_one_sentence():
    with pytest.raises(CuttlefishError, match="NaN or infinite"):
        spectrum(torch.full((2, 2), math.nan))


# Multipliers, penalty, and the whole algorithm on a problem with a known answer


def test_at_mu_zero_multipliers_stay_zero_and_nothing_is_divided():
    w, zero = matrix(4, 5), torch.zeros(4, 5, dtype=torch.float64)
    A = shifted(w, zero, 0.0)
    assert torch.equal(A, w)
    assert not next_multipliers(zero, w, c_step(A, mu=0.0, alpha=1.0).delta, 0.0).any()


def test_the_penalty_s_gradient_is_that_of_its_square():
    w, delta, multipliers, mu = matrix(4, 5, 1).requires_grad_(), matrix(4, 5, 2), matrix(4, 5, 3), 0.7
    (mu / 2 * (w - (delta + multipliers / mu)).square().sum()).backward()
    torch.testing.assert_close(w.grad, mu * w.detach() - penalty_shift(delta, multipliers, mu))
    torch.testing.assert_close(w.grad, mu * (w.detach() - delta) - multipliers)


def test_a_stationary_gradient_is_the_next_multiplier():
    goal, delta, multipliers, mu = matrix(4, 5, 1), matrix(4, 5, 2), matrix(4, 5, 3), 0.7
    w = (goal + penalty_shift(delta, multipliers, mu)) / (1 + mu)  # minimiser of |w - goal|^2 / 2 + penalty
    torch.testing.assert_close(w - goal, next_multipliers(multipliers, w, delta, mu))


def test_on_a_quadratic_with_exact_l_steps_the_constraint_is_met():
    torch.manual_seed(0)
    goal = matrix(5, 7, 4)
    half = torch.randn(35, 35, dtype=torch.float64)
    H = half @ half.T / 35 + 0.1 * torch.eye(35, dtype=torch.float64)
    w, multipliers, delta, gaps, ranks = goal.clone(), torch.zeros_like(goal), torch.zeros_like(goal), [], []
    for k, mu in enumerate(mu_schedule(1e-2, 1.3, 45)):
        if k:
            pull = penalty_shift(delta, multipliers, mu).flatten()
            w = torch.linalg.solve(H + mu * torch.eye(35), H @ goal.flatten() + pull).view(5, 7)
        rank, delta = c_step(shifted(w, multipliers, mu), mu=mu, alpha=1e-3)
        multipliers = next_multipliers(multipliers, w, delta, mu)
        gaps.append(float((w - delta).norm()))
        ranks.append(rank)
    assert gaps[-1] < 1e-5 * gaps[0]
    assert max(ranks) > ranks[0]  # ranks grow with mu, too


# The size


def layers_and_spectra():
    matrices = {f"layer{i}": matrix(m, n, seed=i) for i, (m, n) in enumerate([(6, 20), (10, 10), (12, 7)])}
    layers = {name: Layer(*A.shape, multiplier=1 + 3 * i) for i, (name, A) in enumerate(matrices.items())}
    return layers, {name: spectrum(A) for name, A in matrices.items()}


def test_alpha_for_a_size_is_the_nearest_of_all_alphas():
    layers, spectra = layers_and_spectra()

    def size(alpha: float) -> int:
        ranks = {
            name: learned_rank(spectra[name], mu=2.0, price=alpha * layer.unit)
            for name, layer in layers.items()
        }
        return compressed(1000, layers, ranks)

    reachable = {size(alpha) for alpha in torch.logspace(-9, 1, 4000).tolist()}
    for wanted in range(compressed(1000, layers, dict.fromkeys(layers, 0)), 1001, 7):
        alpha = alpha_for(wanted, 1000, layers, spectra, mu=2.0)
        assert abs(size(alpha) - wanted) == min(abs(other - wanted) for other in reachable)
        assert size(alpha * (1 + 1e-9)) == size(alpha * (1 - 1e-9)) == size(alpha)


def test_a_layer_never_counts_more_than_its_dense_weight():
    layer = Layer(6, 12)
    assert [layer.parameters(rank) for rank in range(7)] == [18, 18, 36, 54, 72, 72, 72]
    assert compressed(1000, {"a": layer}, {"a": 2}) == 1000 - 72 + 36


def test_gaps_are_relative():
    assert relative_errors([torch.ones(4)], [torch.zeros(4)]) == [1.0]
    assert relative_errors([torch.zeros(4)], [torch.zeros(4)]) == [0.0] and relative_errors([], []) == []
