"""LC in the trainer: the order of its steps, what an L step adds, evaluation at the low-rank point, factors,
sizes, the record."""

import json
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from baselines.lc.c_step import c_step, compressed
from baselines.lc.method import LC
from cuttlefish.engine.run import resolve_run
from cuttlefish.engine.session import Session
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.count import count_parameters
from cuttlefish.lowrank.matrix import fold, unroll
from cuttlefish.lowrank.surgery import break_even, low_rank_layers
from cuttlefish.worker import run_config
from tests.helpers.runs import METHODS, little_config

LITTLE = METHODS["lc"]


def session(folder, **knobs) -> Session:
    return Session(resolve_run(replace(little_config(folder), method={"name": "lc", **LITTLE, **knobs})))


def entered(folder, phases: int, **knobs):
    """A method and its context after so many L phases have been entered, without training (the weights move a
    little instead)."""
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
            expected += (
                mu * (parameter.detach() - method.penalty.deltas[layer]) - method.penalty.multipliers[layer]
            )
        torch.testing.assert_close(parameter.grad, expected)
    assert len(method.layers) == 16 and "conv1" not in method.layers and "fc" not in method.layers


def test_the_steps_follow_the_order_of_the_algorithm(tmp_path):
    method, context = entered(tmp_path, 1)
    first, layer = method.penalty.deltas["layer1.0.conv1"].clone(), "layer1.0.conv1"
    weight = context.model.get_submodule(layer).weight.detach().clone()
    mu = method.plan.mus
    A = unroll(weight).double()
    torch.testing.assert_close(
        unroll(first).double(), c_step(A, mu=mu[0], alpha=method.alpha).delta, atol=1e-6, rtol=0
    )
    multipliers = -mu[0] * (weight - first)
    torch.testing.assert_close(method.penalty.multipliers[layer], multipliers)
    method.compress(context)
    A = unroll(weight - multipliers / mu[1]).double()
    torch.testing.assert_close(
        unroll(method.penalty.deltas[layer]).double(),
        c_step(A, mu=mu[1], alpha=method.alpha).delta,
        atol=1e-5,
        rtol=0,
    )


def test_multipliers_move_at_the_last_repeat_of_a_mu(tmp_path):
    method, context = entered(tmp_path, 1, mu_rep=2)
    assert not any(tensor.any() for tensor in method.penalty.multipliers.values())
    method.compress(context)
    assert any(tensor.any() for tensor in method.penalty.multipliers.values())
    assert len(method.plan.mus) == 6


def test_evaluation_is_at_delta_and_leaves_every_bit_of_w(tmp_path):
    method, context = entered(tmp_path, 1)
    before = {name: tensor.clone() for name, tensor in context.model.state_dict().items()}
    with pytest.raises(RuntimeError), method.evaluating(context.model):
        for name, delta in method.penalty.deltas.items():
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
    grouped = [
        parameter for group in method.param_groups(context.model, 1e-4) for parameter in group["params"]
    ]
    assert len(grouped) == len(list(context.model.parameters())) and set(grouped) == set(
        context.model.parameters()
    )


@pytest.mark.parametrize(
    "knobs", [{}, {"scheme": "spatial"}, {"ft_from": "delta"}, {"include_first": True, "include_last": True}]
)
def test_reparametrised_layers_compute_the_truncated_network(tmp_path, knobs):
    method, context = entered(tmp_path, 2, alpha=5e-4, **knobs)
    scheme, mu = knobs.get("scheme", "channel"), method.plan.mus[-1]
    dense = deepcopy(context.model)
    multipliers = {name: tensor.clone() for name, tensor in method.penalty.multipliers.items()}
    method.reparametrise(context)
    assert method.factorized and method.factorized.keys() == low_rank_layers(context.model).keys()
    for name, path in method.path.items():
        weight, rank = dense.get_submodule(name).weight, path[-1]
        assert (name in method.factorized) == (max(rank, 1) < break_even(dense.get_submodule(name), scheme))
        if name in method.factorized:
            assert method.factorized[name] == max(rank, 1)
            layer = context.model.get_submodule(name)
            assert count_parameters(layer).total < count_parameters(dense.get_submodule(name)).total
            source = (
                weight - multipliers[name] / mu if rank and method.settings.ft_from == "delta" else weight
            )
            weight.data = fold(truncated(unroll(source, scheme), max(rank, 1)), weight.shape, scheme)
        elif method.settings.ft_from == "delta":
            weight.data = context.model.get_submodule(name).weight.data
    ranks = {name: path[-1] for name, path in method.path.items()}
    assert count_parameters(context.model).total == compressed(method.dense, method.layers, ranks)
    images = context.example_batch().inputs
    torch.testing.assert_close(context.model.eval()(images), dense.eval()(images), atol=1e-5, rtol=1e-5)


def truncated(weight: torch.Tensor, rank: int) -> torch.Tensor:
    U, S, V = torch.linalg.svd(weight.detach().double(), full_matrices=False)
    return (U[:, :rank] * S[:rank] @ V[:rank]).float()


def test_fine_tuning_decays_products_not_factors(tmp_path):
    method, context = entered(tmp_path, 3)
    factors = {
        part.weight
        for layer in low_rank_layers(context.model).values()
        for part in (layer.first, layer.second)
    }
    for group in method.param_groups(context.model, 1e-4):
        assert not group["weight_decay"] or not factors & set(group["params"])
    name, layer = next(iter(low_rank_layers(context.model).items()))
    for parameter in context.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    method.on_gradients(context.model)
    G, F = layer.factors()
    decay = method.plan.sgd.weight_decay
    torch.testing.assert_close(
        unroll(layer.first.weight.grad), decay * (G.T @ G @ F).detach(), atol=1e-8, rtol=1e-4
    )
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
    assert (
        per["layer1.0.conv1"] == 144
        and per["layer2.0.conv1"] == 36
        and per["layer4.1.conv2"] == 4
        and per["fc"] == 1
    )
    assert {layer.multiplier for layer in session(tmp_path).method.layers.values()} == {1}


def test_layers_by_the_switches(tmp_path):
    everything = session(tmp_path, include_first=True, include_last=True, include_shortcuts=True).method
    assert len(everything.layers) == 21 and everything.k == 0
    assert session(tmp_path).method.k == 1


def test_a_target_sets_alpha_so_that_the_spectra_have_its_size(tmp_path):
    dense = session(tmp_path).context.counts_full["params"]
    method, context = entered(tmp_path, 1, alpha=2e-6, target_params=dense // 2, retarget=False)
    weights = {name: unroll(context.model.get_submodule(name).weight) for name in method.layers}
    ranks = {
        name: c_step(weight, mu=method.plan.mus[-1], alpha=method.alpha).rank
        for name, weight in weights.items()
    }
    assert abs(compressed(method.dense, method.layers, ranks) - dense // 2) < 0.02 * dense
    alpha = method.alpha
    method.compress(context)
    assert method.alpha == alpha
    other, _ = entered(tmp_path, 1, alpha=2e-6, target_params=dense // 2, retarget=False, alpha_factor=0.5)
    assert other.alpha == pytest.approx(alpha / 2)


def test_by_default_the_size_is_met_whatever_l_steps_do(tmp_path):
    dense = session(tmp_path).context.counts_full["params"]
    record = run_config(
        replace(
            little_config(tmp_path),
            method={"name": "lc", **LITTLE, "alpha": 2e-6, "target_params": dense // 2},
        )
    )
    assert record.target["params"] == dense // 2 and record.target["achieved"] == record.params_total
    assert record.target["ratio"] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("wanted", [100, 10**9])
def test_unreachable_sizes_are_refused_before_training(tmp_path, wanted):
    dense = session(tmp_path).context.counts_full["params"]
    with pytest.raises(CuttlefishError, match="the nearest it can is ([0-9,]+)$") as caught:
        session(tmp_path, alpha=2e-6, target_params=wanted)
    nearest = int(str(caught.value).split()[-1].replace(",", ""))
    assert nearest == dense if wanted > dense else 100 < nearest < dense
    session(tmp_path, alpha=2e-6, target_params=nearest)


def test_a_run_records_ranks_of_every_step_and_all_phases(tmp_path):
    record = run_config(little_config(tmp_path, "lc"))
    assert [phase["name"] for phase in record.phases] == ["reference", "L1", "L2", "finetune"]
    assert [phase["epochs"] for phase in record.phases] == [1, 1, 1, 1]
    assert all(phase["seconds"]["ranks"] > 0 for phase in record.phases[1:])
    extra = record.extra
    assert len(extra["mu"]) == 3 and all(len(path) == 3 for path in extra["rank_path"].values())
    for name, rank in record.ranks.items():
        assert rank == max(extra["rank_path"][name][-1], 1)
    assert record.params_total < record.params_full and record.k == 1
    epochs = [
        json.loads(line) for line in (tmp_path / "epochs.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert record.accuracy_best == epochs[-1]["test_accuracy"], "the dense reference's accuracy is not LC's"
    assert [row["lr"] for row in epochs[1:]] == pytest.approx([0.007 * 0.05] * 2 + [0.005]), (
        "every L step restarts its learning rate"
    )


def test_a_full_rank_run_can_be_the_reference(tmp_path):
    origin = run_config(little_config(tmp_path / "origin"))
    method = {"name": "lc", **LITTLE, "recipe": {"epochs": 4}}
    arm = run_config(
        replace(little_config(tmp_path / "arm", fork_from=str(tmp_path / "origin")), method=method)
    )
    alone = run_config(replace(little_config(tmp_path / "alone"), method=method))
    assert arm.forked_from == origin.run_key and arm.epochs_trained == alone.epochs_trained == 7
    assert (arm.loss_final, arm.ranks) == (alone.loss_final, alone.ranks)


def test_the_state_of_another_method_is_taken_for_the_reference(tmp_path):
    run = session(tmp_path)
    run.method.load_state_dict(run.context, {"history": {"layer1.0.conv1": [3.2]}})
    assert isinstance(run.method, LC) and run.method.done == 0 and not run.method.penalty.deltas
    run.method.compress(run.context)
    assert run.method.done == 1
