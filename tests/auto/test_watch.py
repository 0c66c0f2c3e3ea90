"""Mistakes of a loop are named: what is certain raises before the step, what is likely is logged once."""

import copy
import gc

import pytest
import torch
from timm.optim import Lookahead
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import StepLR
from torch.optim.swa_utils import AveragedModel

from cuttlefish import Cuttlefish, CuttlefishError
from tests.helpers.little_networks import IMAGES, network, step

FIXED = {"k": 1, "switch_epoch": 1, "rank_ratio": 0.25}


@pytest.fixture(autouse=True)
def loudly(caplog):
    caplog.set_level("WARNING", logger="cuttlefish")


def begin(make=lambda groups: SGD(groups, lr=0.1, momentum=0.9), **knobs):
    model = network()
    cf = Cuttlefish(model, IMAGES, **FIXED | knobs)
    optimizer = make(cf.param_groups(0.1))
    step(model, optimizer, cf)
    return model, cf, optimizer


def told(caplog):
    return [record.getMessage() for record in caplog.records]


def test_a_loop_without_mistakes_is_told_nothing(caplog):
    for make in (lambda groups: SGD(groups, lr=0.1), lambda groups: AdamW(groups, lr=1e-3)):
        model, cf, optimizer = begin(make, frobenius_decay=1e-3)
        scheduler, average = StepLR(optimizer, 1), AveragedModel(model)
        cf.follow(average)
        for _ in range(3):
            step(model, optimizer, cf)
            scheduler.step()
            if cf.epoch_end():
                cf.optimizer(optimizer)
            average.update_parameters(model)
    assert told(caplog) == []


def test_an_optimizer_of_the_old_weights_is_refused_before_its_step():
    model, cf, optimizer = begin()
    assert cf.epoch_end()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CuttlefishError, match=r"SGD still holds 4 parameters .* replaced \(3.weight"):
        step(model, optimizer, cf)
    assert all(
        torch.equal(before[name], value)
        for name, value in model.state_dict().items()
        if "weight" in name and "running" not in name
    )


def test_parameters_exchanged_under_the_optimizer_are_noticed():
    model, cf, optimizer = begin()
    model.load_state_dict(network(1).state_dict(), assign=True)
    with pytest.raises(CuttlefishError, match="would update a tensor that the model no longer holds"):
        step(model, optimizer, cf)
    step(model, SGD(model.parameters(), lr=0.1), cf)


@pytest.mark.parametrize(
    "make", [lambda optimizer: StepLR(optimizer, 1), lambda optimizer: CosineLRScheduler(optimizer, 5)]
)
def test_a_scheduler_of_the_old_optimizer_is_named(make, caplog):
    model, cf, optimizer = begin()
    scheduler = make(optimizer)
    cf.epoch_end()
    step(model, SGD(cf.param_groups(0.1), lr=0.1), cf)
    assert f"a {type(scheduler).__name__} still drives the optimizer from before" in "".join(told(caplog))


def test_an_average_that_does_not_follow_is_named(caplog):
    model, cf, optimizer = begin()
    average = AveragedModel(model)
    cf.epoch_end()
    step(model, cf.optimizer(optimizer), cf)
    assert [text for text in told(caplog) if "AveragedModel still averages the dense weights" in text]
    assert average is not None


def test_decay_that_is_never_called_is_refused():
    model, cf, optimizer = begin(frobenius_decay=1e-3)
    cf.epoch_end()
    cf.optimizer(optimizer)
    with pytest.raises(CuttlefishError, match="Frobenius decay of 0.001 is on, but before_step"):
        step(model, optimizer)


def test_decay_forgotten_once_is_named(caplog):
    model, cf, optimizer = begin(frobenius_decay=1e-3)
    cf.epoch_end()
    cf.optimizer(optimizer)
    step(model, optimizer, cf)
    step(model, optimizer)
    assert told(caplog) == ["an optimizer step came without before_step(): it had no Frobenius decay"]


def test_decay_by_micro_batch_is_named(caplog):
    model, cf, optimizer = begin(frobenius_decay=1e-3)
    cf.epoch_end()
    cf.optimizer(optimizer)
    for _ in range(2):
        for _ in range(4):
            model(IMAGES).square().mean().backward()
            cf.before_step()
        optimizer.step()
        optimizer.zero_grad()
    assert "before_step() was called 2 times before one optimizer step" in told(caplog)[0]


def test_an_optimizer_around_another_takes_one_step(caplog):
    model, cf, optimizer = begin(lambda groups: Lookahead(AdamW(groups, lr=1e-3)), frobenius_decay=1e-3)
    cf.epoch_end()
    cf.optimizer(optimizer)
    for _ in range(2):
        step(model, optimizer, cf)
    assert told(caplog) == []


def test_epochs_that_are_left_out_are_named(caplog):
    model, cf, optimizer = begin(switch_epoch=1, epochs=4)
    assert cf.epoch_end(1) and cf.switch_epoch == 2, "as a loop that counts from 1 calls it"
    assert "epoch_end() was told of 2 epochs at once" in told(caplog)[0]


def test_an_interval_of_micro_batches_is_named(caplog):
    model = network()
    cf = Cuttlefish(model, IMAGES, interval=4, **FIXED)
    optimizer = cf.optimizer(SGD(model.parameters(), lr=0.1))
    for micro in range(4):
        model(IMAGES).square().mean().backward()
        if micro % 2:
            optimizer.step()
        cf.step_end()
    assert "step_end() was called 4 times for 2 optimizer steps" in told(caplog)[0]


def test_steps_skipped_by_a_gradient_scaler_are_no_mistake(caplog):
    model, cf, optimizer = begin(frobenius_decay=1e-3)
    cf.epoch_end()
    cf.optimizer(optimizer)
    for skipped in (False, True, True, False):
        model(IMAGES).square().mean().backward()
        cf.before_step()
        if not skipped:
            optimizer.step()
        optimizer.zero_grad()
    assert told(caplog) == []


def test_factors_decayed_twice_are_named(caplog):
    model, cf, _ = begin(frobenius_decay=1e-3)
    cf.epoch_end()
    step(model, SGD(model.parameters(), lr=0.1, weight_decay=0.1), cf)
    assert [text for text in told(caplog) if "4 factors are decayed twice" in text]


def test_calls_out_of_order_are_refused(caplog):
    model, cf, optimizer = begin(switch_epoch=3, epochs=4)
    cf.epoch_end(0)
    with pytest.raises(CuttlefishError, match=r"epoch_end\(0\) was called, but epoch 0 has ended already"):
        cf.epoch_end(0)
    with torch.inference_mode(), pytest.raises(CuttlefishError, match="inference mode"):
        cf.epoch_end()
    cf.epoch_end()
    assert told(caplog) == [
        "epoch_end() was called again without an optimizer step since; call it once an epoch"
    ]
    with pytest.raises(CuttlefishError, match="behind the last of the run's 4 epochs"):
        cf.epoch_end(4)


def test_a_switch_after_the_last_epoch_is_none(caplog):
    cf = Cuttlefish(network(), IMAGES, k=1, epochs=2, stability="paper", stability_options={"threshold": 0.0})
    assert not cf.epoch_end() and not cf.epoch_end() and cf.reason == "never" and not cf.switched
    assert "2 epochs are over and its ranks have not settled" in told(caplog)[0]


def test_a_loop_that_never_ends_an_epoch_is_told(caplog):
    model, cf, optimizer = begin()
    step(model, optimizer, cf)
    del cf
    gc.collect()
    assert "took 2 optimizer steps, but neither epoch_end() nor step_end()" in told(caplog)[0]


def test_other_models_optimizers_are_left_alone():
    model, cf, _ = begin(frobenius_decay=1e-3)
    cf.epoch_end()
    other = nn.Linear(2, 2)
    optimizer = SGD(other.parameters(), lr=0.1)
    other(torch.ones(1, 2)).sum().backward()
    optimizer.step()


class HoldsItsLayer(nn.Module):
    """Calls one layer through a closure."""

    def __init__(self):
        super().__init__()
        self.body = network()
        layer = self.body[6]
        self.call = lambda x: layer(x)

    def forward(self, x):
        x = self.body[:6](x)
        return self.body[7:](self.call(x))


def test_a_layer_that_the_model_does_not_run_is_noticed():
    cf = Cuttlefish(HoldsItsLayer(), IMAGES, **FIXED)
    with pytest.raises(
        CuttlefishError, match="layer 'body.6' was replaced, but the model still runs the old one"
    ):
        cf.epoch_end()


def test_frozen_layers_and_adapters_are_left_alone():
    model = network()
    model[3].requires_grad_(False)
    cf = Cuttlefish(model, IMAGES, **FIXED)
    assert cf.layers == ["6"] and cf.kept_dense["3"] == "it is frozen"
    assert cf.epoch_end() and type(model[3]) is nn.Conv2d


class Adapted(nn.Module):
    """A linear layer with a low-rank adapter beside it, named as peft names them."""

    def __init__(self):
        super().__init__()
        self.base_layer = nn.Linear(64, 64)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(64, 32)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(32, 64)})

    def forward(self, x):
        return self.base_layer(x) + self.lora_B["default"](self.lora_A["default"](x))


def test_adapters_keep_their_matrices():
    model = nn.Sequential(nn.Linear(16, 64), Adapted(), nn.ReLU(), nn.Linear(64, 4))
    cf = Cuttlefish(model, torch.randn(4, 16), **FIXED)
    assert cf.layers == ["1.base_layer"]
    assert "adapter" in cf.kept_dense["1.lora_A.default"]


def test_gradients_made_in_a_closure_are_decayed_once(caplog):
    decayed, plain = [], []
    for seen, coefficient in ((decayed, 1e-1), (plain, 0.0)):
        model, cf, optimizer = begin(frobenius_decay=coefficient)
        cf.epoch_end()
        cf.optimizer(optimizer)

        def closure(model=model, cf=cf, optimizer=optimizer):
            optimizer.zero_grad()
            loss = model(IMAGES).square().mean()
            loss.backward()
            cf.before_step()
            return loss

        before = model[3].first.weight.detach().clone()
        optimizer.step(closure)
        seen.extend([before, model[3].first.weight.grad.clone()])
    assert torch.equal(decayed[0], plain[0]) and not torch.equal(decayed[1], plain[1]) and told(caplog) == []


def test_a_watch_that_goes_while_another_steps_breaks_no_step():
    """The first look after a switch collects garbage, and with it what watched an earlier run."""
    gc.disable()
    try:
        model, cf, optimizer = begin()
        earlier = begin()[1]
        earlier.itself = earlier
        del earlier
        assert cf.epoch_end()
        step(model, cf.optimizer(optimizer), cf)
    finally:
        gc.enable()
