"""LC: the C step against brute force, its invariants, the L step's pull, the size, and what it does in a run."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines import lc_math
from baselines.lc import LC
from baselines.lc_math import (
    Layer,
    alpha_for,
    c_step,
    compressed,
    learned_rank,
    mu_schedule,
    next_multipliers,
    penalty_shift,
    shifted,
    spectrum,
)
from baselines.lc_plan import Settings, make_plan
from cuttlefish.config import OptimizerConfig, RecipeConfig, ScheduleConfig
from cuttlefish.engine.session import Session
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.count import count_parameters
from cuttlefish.lowrank.matrix import fold, unroll
from cuttlefish.lowrank.surgery import break_even, low_rank_layers
from cuttlefish.presets import resolve_method
from cuttlefish.schedule import Exponential, Milestones
from cuttlefish.validate import build_settings
from cuttlefish.worker import run_config
from tests.runs import METHODS, little_config

FILE = Path(__file__).resolve().parents[2] / "conf" / "method" / "lc.yaml"
LITTLE = METHODS["lc"]


def matrix(m: int, n: int, seed: int = 0, rank: int | None = None) -> torch.Tensor:
    """float64, with singular values that fall geometrically, so that every threshold falls between two of them."""
    generator = torch.Generator().manual_seed(seed)
    k = min(m, n) if rank is None else rank
    left = torch.linalg.qr(torch.randn(m, k, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(n, k, generator=generator, dtype=torch.float64)).Q
    values = 3 * 0.7 ** (torch.arange(k, dtype=torch.float64) + torch.rand(k, generator=generator, dtype=torch.float64) / 2)
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
def test_the_c_step_is_optimal_over_ranks_and_over_matrices_of_a_rank(shape, problem, seed):
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
def test_the_rank_is_a_count_that_grows_with_mu_and_falls_with_every_price(shape, problem, seed, factor):
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
def test_scaling_a_matrix_changes_nothing_once_normalized_and_scales_alpha_otherwise(shape, problem, seed, t):
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


def test_at_a_stationary_point_the_gradient_is_the_next_multiplier():
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


def test_mu_grows_geometrically_and_the_first_c_step_has_no_l_step():
    assert mu_schedule(1.0, 2.0, 3, 2) == [1, 1, 2, 2, 4, 4]
    plan = make_plan(Settings(steps=4, mu_rep=2, epochs_per_l=3, mu0=1.0, mu_inc=2.0), RecipeConfig(epochs=10))
    assert len(plan.mus) == 8 and plan.l_steps == [3] * 7


# The budget


@settings(deadline=None, max_examples=30)
@given(st.integers(6, 400), st.integers(2, 60))
def test_by_default_all_phases_add_up_to_the_recipe_s_epochs(epochs, steps):
    plan = make_plan(Settings(steps=steps), RecipeConfig(epochs=epochs))
    assert plan.recipe.epochs + sum(plan.l_steps) + plan.finetune == epochs
    assert min(plan.l_steps) >= 1 and max(plan.l_steps) - min(plan.l_steps) <= 1
    assert len(plan.mus) == len(plan.l_steps) + 1 <= steps
    assert plan.mus[0] == pytest.approx(0.1) and plan.mus[-1] == pytest.approx(10)


def test_a_budget_without_room_for_l_steps_is_refused():
    with pytest.raises(CuttlefishError, match="leave none of the recipe's 2"):
        make_plan(Settings(), RecipeConfig(epochs=2))
    with pytest.raises(CuttlefishError, match="9 epochs are left for 29 L steps"):
        make_plan(Settings(mu_inc=1.2), RecipeConfig(epochs=30))


BAD = [{"mu0": 0.0}, {"steps": 1}, {"mu_inc": 0.9}, {"alpha": -1.0}, {"ft_share": 0.6}, {"scheme": "x"}, {"mu_rep": 0}, {"mu_last": 0.01}]


@pytest.mark.parametrize("knobs", BAD)
def test_knobs_out_of_range_are_refused(knobs):
    with pytest.raises(CuttlefishError):
        Settings(**knobs).check()


def published(model: str) -> Settings:
    method = {**yaml.safe_load(FILE.read_text(encoding="utf-8")), "preset": "reference"}
    return build_settings(Settings, resolve_method(method, model, "cifar10"))


def test_the_published_recipes_are_the_audit_s():
    resnet, vgg = (make_plan(published(model), RecipeConfig()) for model in ("resnet18", "vgg19"))
    assert resnet.recipe.epochs + sum(resnet.l_steps) + resnet.finetune == 200 + 735 + 200
    assert vgg.recipe.epochs + sum(vgg.l_steps) + vgg.finetune == 300 + 885 + 300
    assert resnet.mus[-1] == pytest.approx(56.05, abs=0.01) and vgg.mus[-1] == pytest.approx(0.939, abs=1e-3)
    assert [resnet.reference_schedule().lr(epoch) for epoch in (0, 99, 100, 150)] == pytest.approx([0.1, 0.1, 0.01, 0.001])
    assert [vgg.reference_schedule().lr(epoch) for epoch in (0, 1)] == pytest.approx([0.05, 0.05 * 0.97716])
    assert [list(plan.l_schedules())[-1] for plan in (resnet, vgg)] == [Exponential(7e-4, 0.99)] * 2
    assert (resnet.ft_schedule(), vgg.ft_schedule()) == (Exponential(1e-4, 0.99), Exponential(7e-4, 0.99))
    assert (resnet.sgd.weight_decay, vgg.sgd.weight_decay) == (2e-4, 1e-3)
    assert resnet.sgd.nesterov and resnet.recipe.optimizer == OptimizerConfig(nesterov=True, weight_decay=2e-4)


def test_learning_rates_of_an_equal_budget_follow_the_recipe_s_peak():
    recipe = RecipeConfig(epochs=30, schedule=ScheduleConfig(base_lr=0.03, peak_lr=0.1, warmup_epochs=2))
    plan = make_plan(Settings(), recipe)
    assert isinstance(plan.reference_schedule(), Milestones) and plan.reference_schedule().milestones == (7, 11)
    assert next(plan.l_schedules()).initial_lr == pytest.approx(7e-4)
    assert plan.ft_schedule().lr(0) == pytest.approx(0.01) and plan.ft_schedule().lr(plan.finetune) == pytest.approx(0.0005)
    later = list(make_plan(Settings(l_lr=1.0, l_decay=0.5, l_decay_per="step"), recipe).l_schedules())
    assert [schedule.lr(3) for schedule in later[:3]] == [0.5, 0.25, 0.125]


# The size


def layers_and_spectra():
    matrices = {f"layer{i}": matrix(m, n, seed=i) for i, (m, n) in enumerate([(6, 20), (10, 10), (12, 7)])}
    layers = {name: Layer(*A.shape, multiplier=1 + 3 * i) for i, (name, A) in enumerate(matrices.items())}
    return layers, {name: spectrum(A) for name, A in matrices.items()}


def test_alpha_for_a_size_is_the_nearest_of_all_alphas():
    layers, spectra = layers_and_spectra()

    def size(alpha: float) -> int:
        ranks = {name: learned_rank(spectra[name], mu=2.0, price=alpha * layer.unit) for name, layer in layers.items()}
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


# In the trainer


def session(folder, **knobs) -> Session:
    return Session(replace(little_config(folder), method={"name": "lc", **LITTLE, **knobs}), "key", folder)


def entered(folder, phases: int, **knobs):
    """A method and its context after so many L phases have been entered, without training (the weights move a little instead)."""
    run = session(folder, **knobs)
    method, context = run.method, run.context
    method.on_fit_start(context)
    generator = torch.Generator().manual_seed(0)
    for phase in list(method.phases(context))[1 : 1 + phases]:
        with torch.no_grad():
            for parameter in context.model.parameters():
                parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))
        phase.enter(context)
    return method, context


def test_an_l_step_adds_the_penalty_s_gradient_and_nothing_else(tmp_path):
    method, context = entered(tmp_path, 2)
    mu, model = method.plan.mus[2], context.model
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    method.on_gradients(model)
    for name, parameter in model.named_parameters():
        layer = name.removesuffix(".weight")
        expected = torch.ones_like(parameter)
        if layer in method.layers:
            expected += mu * (parameter.detach() - method.deltas[layer]) - method.multipliers[layer]
        torch.testing.assert_close(parameter.grad, expected)
    assert len(method.layers) == 16 and "conv1" not in method.layers and "fc" not in method.layers


def test_the_steps_follow_the_order_of_the_algorithm(tmp_path):
    method, context = entered(tmp_path, 1)
    first, layer = method.deltas["layer1.0.conv1"].clone(), "layer1.0.conv1"
    weight = context.model.get_submodule(layer).weight.detach().clone()
    mu = method.plan.mus
    A = unroll(weight).double()
    torch.testing.assert_close(unroll(first).double(), c_step(A, mu=mu[0], alpha=method.alpha).delta, atol=1e-6, rtol=0)
    multipliers = -mu[0] * (weight - first)
    torch.testing.assert_close(method.multipliers[layer], multipliers)
    method.compress(context)
    A = unroll(weight - multipliers / mu[1]).double()
    torch.testing.assert_close(unroll(method.deltas[layer]).double(), c_step(A, mu=mu[1], alpha=method.alpha).delta, atol=1e-5, rtol=0)


def test_multipliers_move_at_the_last_repeat_of_a_mu(tmp_path):
    method, context = entered(tmp_path, 1, mu_rep=2)
    assert not any(tensor.any() for tensor in method.multipliers.values())
    method.compress(context)
    assert any(tensor.any() for tensor in method.multipliers.values())
    assert len(method.plan.mus) == 6


def test_evaluation_is_at_delta_and_leaves_every_bit_of_w(tmp_path):
    method, context = entered(tmp_path, 1)
    before = {name: tensor.clone() for name, tensor in context.model.state_dict().items()}
    with pytest.raises(RuntimeError), method.evaluating(context.model):
        for name, delta in method.deltas.items():
            assert torch.equal(context.model.get_submodule(name).weight, delta)
        raise RuntimeError
    assert all(torch.equal(tensor, before[name]) for name, tensor in context.model.state_dict().items())


def test_the_reference_and_fine_tuning_are_evaluated_as_they_are(tmp_path):
    run = session(tmp_path)
    run.method.on_fit_start(run.context)
    weight = run.context.model.get_submodule("layer1.0.conv1").weight
    weight.grad = torch.ones_like(weight)
    run.method.on_gradients(run.context.model)
    assert torch.equal(weight.grad, torch.ones_like(weight))
    before = weight.detach().clone()
    with run.method.evaluating(run.context.model):
        assert torch.equal(weight, before)


def test_penalty_tensors_are_no_part_of_the_model(tmp_path):
    method, context = entered(tmp_path, 2)
    assert count_parameters(context.model).total == context.counts_full["params"]
    grouped = [parameter for group in method.param_groups(context.model, 1e-4) for parameter in group["params"]]
    assert len(grouped) == len(list(context.model.parameters())) and set(grouped) == set(context.model.parameters())


@pytest.mark.parametrize("knobs", [{}, {"scheme": "spatial"}, {"ft_from": "delta"}, {"include_first": True, "include_last": True}])
def test_reparametrised_layers_are_smaller_and_compute_the_truncated_network(tmp_path, knobs):
    method, context = entered(tmp_path, 2, alpha=5e-4, **knobs)
    scheme, mu = knobs.get("scheme", "channel"), method.plan.mus[-1]
    dense = deepcopy(context.model)
    multipliers = {name: tensor.clone() for name, tensor in method.multipliers.items()}
    method.reparametrise(context)
    assert method.factorized and method.factorized.keys() == low_rank_layers(context.model).keys()
    for name, path in method.path.items():
        weight, rank = dense.get_submodule(name).weight, path[-1]
        assert (name in method.factorized) == (max(rank, 1) < break_even(dense.get_submodule(name), scheme))
        if name in method.factorized:
            assert method.factorized[name] == max(rank, 1)
            layer = context.model.get_submodule(name)
            assert count_parameters(layer).total < count_parameters(dense.get_submodule(name)).total
            source = weight - multipliers[name] / mu if rank and method.settings.ft_from == "delta" else weight
            weight.data = fold(truncated(unroll(source, scheme), max(rank, 1)), weight.shape, scheme)
        elif method.settings.ft_from == "delta":
            weight.data = context.model.get_submodule(name).weight.data
    ranks = {name: path[-1] for name, path in method.path.items()}
    assert count_parameters(context.model).total == compressed(method.dense, method.layers, ranks)
    images, _ = context.example_batch()
    torch.testing.assert_close(context.model.eval()(images), dense.eval()(images), atol=1e-5, rtol=1e-5)


def truncated(weight: torch.Tensor, rank: int) -> torch.Tensor:
    U, S, V = torch.linalg.svd(weight.detach().double(), full_matrices=False)
    return (U[:, :rank] * S[:rank] @ V[:rank]).float()


def test_fine_tuning_decays_products_not_factors(tmp_path):
    method, context = entered(tmp_path, 3)
    factors = {part.weight for layer in low_rank_layers(context.model).values() for part in (layer.first, layer.second)}
    for group in method.param_groups(context.model, 1e-4):
        assert not group["weight_decay"] or not factors & set(group["params"])
    name, layer = next(iter(low_rank_layers(context.model).items()))
    for parameter in context.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    method.on_gradients(context.model)
    G, F = layer.factors()
    decay = method.plan.sgd.weight_decay
    torch.testing.assert_close(unroll(layer.first.weight.grad), decay * (G.T @ G @ F).detach(), atol=1e-8, rtol=1e-4)
    assert decay == 1e-4 and name in method.factorized


def test_norm_scales_decay_only_where_asked(tmp_path):
    for wanted in (False, True):
        method, context = entered(tmp_path, 0, decay_norms=wanted)
        groups = method.param_groups(context.model, 1e-4)
        decayed = {parameter for group in groups if group["weight_decay"] for parameter in group["params"]}
        assert (context.model.bn1.weight in decayed) == wanted and context.model.bn1.bias not in decayed
        assert sum(len(group["params"]) for group in groups) == len(list(context.model.parameters()))


def test_rank_zero_is_kept_as_rank_one_that_can_learn(tmp_path):
    method, context = entered(tmp_path, 3, alpha=1.0, ft_from="delta")
    assert all(path[-1] == 0 for path in method.path.values())
    assert set(method.factorized.values()) == {1}
    for layer in low_rank_layers(context.model).values():
        assert layer.first.weight.any() and layer.second.weight.any()
    assert method.on_fit_end(context)["rank_zero"] == list(method.layers)


def test_flops_are_charged_by_output_position(tmp_path):
    run = session(tmp_path, criterion="flops", include_last=True)
    per = {name: layer.multiplier for name, layer in run.method.layers.items()}
    assert per["layer1.0.conv1"] == 144 and per["layer2.0.conv1"] == 36 and per["layer4.1.conv2"] == 4 and per["fc"] == 1
    assert {layer.multiplier for layer in session(tmp_path).method.layers.values()} == {1}


def test_layers_by_the_switches(tmp_path):
    everything = session(tmp_path, include_first=True, include_last=True, include_shortcuts=True).method
    assert len(everything.layers) == 21 and everything.k == 0
    assert session(tmp_path).method.k == 1


def test_a_target_sets_alpha_so_that_the_spectra_have_its_size(tmp_path):
    dense = session(tmp_path).context.counts_full["params"]
    method, context = entered(tmp_path, 1, target_params=dense // 2, retarget=False)
    weights = {name: unroll(context.model.get_submodule(name).weight) for name in method.layers}
    ranks = {name: c_step(weight, mu=method.plan.mus[-1], alpha=method.alpha).rank for name, weight in weights.items()}
    assert abs(compressed(method.dense, method.layers, ranks) - dense // 2) < 0.02 * dense
    alpha = method.alpha
    method.compress(context)
    assert method.alpha == alpha
    other, _ = entered(tmp_path, 1, target_params=dense // 2, retarget=False, alpha_factor=0.5)
    assert other.alpha == pytest.approx(alpha / 2)


def test_by_default_the_size_is_met_whatever_l_steps_do_to_the_spectra(tmp_path):
    dense = session(tmp_path).context.counts_full["params"]
    record = run_config(replace(little_config(tmp_path), method={"name": "lc", **LITTLE, "target_params": dense // 2}))
    assert record["target"]["params"] == dense // 2 and record["target"]["achieved"] == record["params_total"]
    assert record["target"]["ratio"] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("wanted", [100, 10**9])
def test_unreachable_sizes_are_refused_before_training(tmp_path, wanted):
    dense = session(tmp_path).context.counts_full["params"]
    with pytest.raises(CuttlefishError, match="the nearest it can is ([0-9,]+)$") as caught:
        session(tmp_path, target_params=wanted)
    nearest = int(str(caught.value).split()[-1].replace(",", ""))
    assert nearest == dense if wanted > dense else 100 < nearest < dense
    session(tmp_path, target_params=nearest)


def test_a_run_records_ranks_of_every_step_and_all_phases(tmp_path):
    record = run_config(little_config(tmp_path, "lc"))
    assert [phase["name"] for phase in record["phases"]] == ["reference", "L1", "L2", "finetune"]
    assert [phase["epochs"] for phase in record["phases"]] == [1, 1, 1, 1]
    assert all(phase["seconds"]["ranks"] > 0 for phase in record["phases"][1:])
    extra = record["extra"]
    assert len(extra["mu"]) == 3 and all(len(path) == 3 for path in extra["rank_path"].values())
    for name, rank in record["ranks"].items():
        assert rank == max(extra["rank_path"][name][-1], 1)
    assert record["params_total"] < record["params_full"] and record["k"] == 1
    epochs = [json.loads(line) for line in (tmp_path / "epochs.jsonl").read_text(encoding="utf-8").splitlines()]
    assert record["accuracy_best"] == epochs[-1]["test_accuracy"], "the dense reference's accuracy is not LC's"
    assert [row["lr"] for row in epochs[1:]] == pytest.approx([0.007 * 0.05] * 2 + [0.005]), "every L step restarts its learning rate"


def test_a_full_rank_run_can_be_the_reference(tmp_path):
    origin = run_config(little_config(tmp_path / "origin"))
    method = {"name": "lc", **LITTLE, "recipe": {"epochs": 4}}
    arm = run_config(replace(little_config(tmp_path / "arm", fork_from=str(tmp_path / "origin")), method=method))
    alone = run_config(replace(little_config(tmp_path / "alone"), method=method))
    assert arm["forked_from"] == origin["run_key"] and arm["epochs_trained"] == alone["epochs_trained"] == 7
    assert (arm["loss_final"], arm["ranks"]) == (alone["loss_final"], alone["ranks"])


def test_the_state_of_another_method_is_taken_for_the_reference(tmp_path):
    run = session(tmp_path)
    run.method.load_state_dict(run.context, {"history": {"layer1.0.conv1": [3.2]}})
    assert isinstance(run.method, LC) and run.method.done == 0 and not run.method.deltas
    run.method.compress(run.context)
    assert run.method.done == 1


def test_gaps_are_relative():
    assert lc_math.relative_errors([torch.ones(4)], [torch.zeros(4)]) == [1.0]
    assert lc_math.relative_errors([torch.zeros(4)], [torch.zeros(4)]) == [0.0] and lc_math.relative_errors([], []) == []
