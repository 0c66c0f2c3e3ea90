"""Optimizers, schedulers and averages follow the switch."""

import copy

import pytest
import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import StepLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cuttlefish import Cuttlefish, CuttlefishError, LowRankConv2d
from cuttlefish.lowrank.matrix import truncated_svd
from tests.helpers.little_networks import IMAGES, LAYERS, network, step

FIXED = {"k": 1, "switch_epoch": 1, "rank_ratio": 0.25}


def trained(make, **knobs):
    model = network()
    cf = Cuttlefish(model, IMAGES, **FIXED | knobs)
    optimizer = make(cf.param_groups(0.1))
    for _ in range(3):
        step(model, optimizer, cf)
    return model, cf, optimizer


def sgd(groups):
    return SGD(groups, lr=0.1, momentum=0.9)


@pytest.mark.parametrize("make", [sgd, lambda groups: AdamW(groups, lr=1e-3)])
@pytest.mark.parametrize("knobs", [{}, {"frobenius_decay": 1e-3}, {"extra_bn": True}])
def test_an_optimizer_follows_in_place(make, knobs):
    model, cf, optimizer = trained(make, **knobs)
    scheduler = StepLR(optimizer, 1, gamma=0.5)
    groups, old = optimizer.param_groups, model[3].weight
    kept = {
        name: copy.deepcopy(optimizer.state[model.get_parameter(name)]) for name in ("0.weight", "4.bias")
    }
    kept["3.second.bias"] = copy.deepcopy(optimizer.state[model[3].bias])
    assert cf.epoch_end() and cf.optimizer(optimizer) is optimizer and cf.optimizer(optimizer) is optimizer
    assert optimizer.param_groups is groups and len(groups) == 2 and old not in optimizer.state
    for name, state in kept.items():
        torch.testing.assert_close(optimizer.state[model.get_parameter(name)], state)
    fresh = make(cf.param_groups(0.1))
    for ours, theirs in zip(groups, fresh.param_groups, strict=True):
        assert list(map(id, ours["params"])) == list(map(id, theirs["params"])), (
            "as a restart would make them"
        )
    before = model[3].first.weight.clone()
    step(model, optimizer, cf)
    scheduler.step()
    assert not torch.equal(before, model[3].first.weight) and groups[0]["lr"] in (0.05, 5e-4)


def test_an_optimizer_given_before_follows_by_itself():
    model = network()
    optimizer = sgd(model.named_parameters())
    cf = Cuttlefish(model, IMAGES, optimizer=optimizer, **FIXED)
    step(model, optimizer, cf)
    assert cf.epoch_end()
    (group,) = optimizer.param_groups
    assert group["param_names"] == [name for name, _ in model.named_parameters()]
    assert list(map(id, group["params"])) == list(map(id, model.parameters()))


def test_momentum_is_projected_on_request():
    model, cf, optimizer = trained(lambda groups: sgd(groups))
    momentum = optimizer.state[model[3].weight]["momentum_buffer"].clone()
    cf.epoch_end()
    cf.optimizer(optimizer, momentum="projected")
    U, Vt = model[3].factors()
    for factor, expected in (
        (model[3].second, (momentum.flatten(1) @ Vt.T)),
        (model[3].first, U.T @ momentum.flatten(1)),
    ):
        buffer = optimizer.state[factor.weight]["momentum_buffer"]
        torch.testing.assert_close(buffer.flatten(1), expected)
    model, cf, optimizer = trained(lambda groups: AdamW(groups, lr=1e-3))
    past = optimizer.state[model[3].weight]
    cf.epoch_end()
    cf.optimizer(optimizer, momentum="projected")
    now = optimizer.state[model[3].second.weight]
    _, Vt = model[3].factors()
    torch.testing.assert_close(now["exp_avg_sq"].flatten(1), past["exp_avg_sq"].flatten(1) @ Vt.square().T)
    assert now["step"] == past["step"] and step(model, optimizer) > 0


def test_refusals_change_nothing():
    model, cf, optimizer = trained(
        lambda groups: SGD(model_of(groups), lr=0.1, weight_decay=0.1), frobenius_decay=1e-3
    )
    with pytest.raises(
        CuttlefishError, match="3.weight comes under Frobenius decay, .* no group with weight_decay=0"
    ):
        cf.optimizer(optimizer)
    with pytest.raises(CuttlefishError, match="holds no parameter of this model"):
        cf.optimizer(SGD(network().parameters(), lr=0.1))
    with pytest.raises(CuttlefishError, match="LBFGS has one state for all"):
        Cuttlefish(network(), IMAGES, optimizer=torch.optim.LBFGS(network().parameters()), **FIXED)
    cf.epoch_end()
    held = list(optimizer.param_groups[0]["params"])
    with pytest.raises(CuttlefishError, match="no group with weight_decay=0"):
        cf.optimizer(optimizer)
    assert all(a is b for a, b in zip(held, optimizer.param_groups[0]["params"], strict=True))
    with pytest.raises(CuttlefishError, match="holds no parameter of this model"):
        cf.optimizer(SGD(network().parameters(), lr=0.1))
    with pytest.raises(CuttlefishError, match="must be fresh or projected"):
        cf.optimizer(optimizer, momentum="old")


def test_an_optimizer_that_holds_the_factors_stays_as_it_is():
    cf = Cuttlefish(network(), IMAGES, **FIXED)
    assert cf.epoch_end()
    again = Cuttlefish.resume(network, cf.state_dict())
    optimizer = SGD(again.param_groups(0.1), lr=0.1)
    held = [list(group["params"]) for group in optimizer.param_groups]
    assert again.optimizer(optimizer) is optimizer
    now = [group["params"] for group in optimizer.param_groups]
    assert all(a is b for old, new in zip(held, now, strict=True) for a, b in zip(old, new, strict=True))


@pytest.mark.parametrize("early", [True, False])
def test_two_optimizers_of_one_model_follow(early):
    """As Muon for the matrices and AdamW for all else: that one holds the biases, or no part of a layer."""
    model = network()
    cf = Cuttlefish(model, IMAGES, **FIXED)
    matrices = [model[index].weight for index in (3, 6)]
    biases = [model[index].bias for index in (3, 6)]
    optimizers = [SGD(matrices, lr=0.1), AdamW(biases, lr=1e-3), AdamW(model[11].parameters(), lr=1e-3)]
    for optimizer in optimizers if early else ():
        cf.optimizer(optimizer)
    model(IMAGES).square().mean().backward()
    assert cf.epoch_end()
    for optimizer in () if early else optimizers:
        cf.optimizer(optimizer)
    held = [id(p) for optimizer in optimizers[:2] for p in optimizer.param_groups[0]["params"]]
    factors = [part.weight for index in (3, 6) for part in (model[index].first, model[index].second)]
    assert sorted(held) == sorted(map(id, [*factors, model[3].bias, model[6].bias]))


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (torch.optim.Adamax, "exp_inf"),
        (torch.optim.Adadelta, "acc_delta"),
        (torch.optim.Adafactor, "row_var"),
        (lambda groups: torch.optim.RMSprop(groups, centered=True), "grad_avg"),
    ],
)
def test_states_without_a_projection_start_fresh(make, key, caplog):
    model, cf, optimizer = trained(make)
    cf.optimizer(optimizer, momentum="projected")
    assert cf.epoch_end()
    assert f"'s {key} has no projection" in caplog.text and model[3].first.weight not in optimizer.state
    step(model, optimizer, cf)


def test_a_projection_asked_for_before_the_switch_is_made():
    model, cf, optimizer = trained(sgd)
    with pytest.raises(CuttlefishError, match="must be fresh or projected"):
        cf.optimizer(optimizer, momentum="old")
    cf.optimizer(optimizer, momentum="projected")
    assert cf.epoch_end() and optimizer.state[model[3].first.weight]["momentum_buffer"].any()


def model_of(groups):
    return [parameter for group in groups for parameter in group["params"]]


AVERAGES = {
    "timm": (lambda model: ModelEmaV3(model, decay=0.9), lambda average, model: average.update(model)),
    "torch": (
        lambda model: AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9)),
        lambda average, model: average.update_parameters(model),
    ),
}


def average_of_products(kind):
    """Relative distance of the average's products from the average of the products, after the switch."""
    make, update = AVERAGES[kind]
    model, cf, optimizer = trained(lambda groups: SGD(groups, lr=0.01, momentum=0.9))
    average = make(model)
    cf.follow(average)
    for _ in range(5):
        step(model, optimizer)
        update(average, model)
    dense = {name: average.module.get_submodule(name).weight.clone() for name in LAYERS}
    assert cf.epoch_end()
    cf.optimizer(optimizer)
    for name, weight in dense.items():
        layer = average.module.get_submodule(name)
        U, Vt = truncated_svd(weight.flatten(1), layer.rank)
        assert isinstance(layer, LowRankConv2d)
        torch.testing.assert_close(layer.weight.flatten(1), U @ Vt, atol=1e-6, rtol=0)
    products = {name: average.module.get_submodule(name).weight.detach().clone() for name in LAYERS}
    for _ in range(5):
        step(model, optimizer)
        update(average, model)
        for name in LAYERS:
            products[name].lerp_(model.get_submodule(name).weight.detach(), 0.1)
    pairs = [(average.module.get_submodule(name).weight, products[name]) for name in LAYERS]
    return max((torch.dist(ours, mean) / mean.norm()).item() for ours, mean in pairs)


@pytest.mark.parametrize("kind", AVERAGES)
def test_an_average_goes_on_in_the_model_s_basis(kind, monkeypatch):
    turned = average_of_products(kind)
    monkeypatch.setattr("cuttlefish.auto.follow.average._turn", lambda *_: None)
    assert turned < 0.05 and average_of_products(kind) > 0.3, "unturned factors do not belong together"


def test_what_is_no_average_is_refused():
    cf = Cuttlefish(network(), IMAGES, **FIXED)
    with pytest.raises(CuttlefishError, match="no average of this model: it has no 0.weight"):
        cf.follow(nn.Linear(2, 2))


def test_an_average_may_follow_after_the_switch():
    model, cf, _ = trained(sgd)
    average = copy.deepcopy(model)
    cf.epoch_end()
    cf.follow(average)
    assert average.state_dict().keys() == model.state_dict().keys()
    torch.testing.assert_close(average.state_dict(), model.state_dict(), atol=1e-6, rtol=0)


def test_statistics_are_measured_anew():
    model, cf, optimizer = trained(sgd)
    cf.epoch_end()
    loader = [(IMAGES + shift, torch.zeros(8)) for shift in (0.0, 1.0, 2.0)]
    modes = [module.training for module in model.modules()]
    assert cf.recalibrate(loader, batches=2) == 2
    with torch.no_grad():
        first = model[0](torch.cat([IMAGES, IMAGES + 1]))
    torch.testing.assert_close(model[1].running_mean, first.mean((0, 2, 3)), atol=1e-5, rtol=1e-4)
    assert model[1].momentum == 0.1 and modes == [module.training for module in model.modules()]
    with pytest.raises(CuttlefishError, match="got no batch"):
        cf.recalibrate([])
