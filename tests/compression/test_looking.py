"""What explain and will_it_pay say of a model, which they leave as it is."""

import copy

import pytest
import torch
from torch import nn

from cuttlefish import CuttlefishError, explain, stable_rank, will_it_pay
from cuttlefish.compression.pays import Payoff
from tests.helpers.little_networks import IMAGES, network


def test_a_table_of_all_layers():
    model = network()
    model.append(nn.Conv2d(4, 4, 1))
    del model[-1]
    table = explain(model, IMAGES)
    rows = {row.layer: row for row in table}
    assert list(rows) == ["0", "3", "6", "11"]
    assert rows["3"].shape == (24, 144) and rows["3"].full_rank == 24 and rows["3"].decision == "factorize"
    assert rows["3"].stable_rank == stable_rank(model[3].weight) and rows["3"].break_even == 24 * 144 / 168
    assert rows["3"].parameters == 24 * 144 + 24
    assert (
        rows["0"].reason == "it is among the leading dense layers (K = 1)" and rows["11"].decision == "dense"
    )
    assert (
        "3                                       Conv2d" in str(table) and len(str(table).splitlines()) == 5
    )
    assert [row.layer for row in explain(model, IMAGES, k=2) if row.decision == "factorize"] == ["6"]


def test_steps_are_measured_on_copies():
    model = network().train()
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    payoff = will_it_pay(model, IMAGES, ratio=0.25, repeats=2)
    assert payoff.full_seconds > 0 and payoff.low_bytes < payoff.full_bytes == 4 * sum(
        p.numel() for p in model.parameters()
    )
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state()) and all(p.grad is None for p in model.parameters())
    assert str(payoff).startswith(("Yes: at 0.25", "No: at 0.25"))


def test_a_plain_yes_or_no():
    assert Payoff(0.25, "cpu", 2.0, 1.0, 10, 5) and not Payoff(0.25, "cpu", 1.02, 1.0, 10, 5)


def test_bad_ratios_are_refused():
    with pytest.raises(CuttlefishError, match="ratio=1 must lie between 0 and 1"):
        will_it_pay(network(), IMAGES, ratio=1)


def test_outputs_without_a_gradient_are_refused():
    with pytest.raises(CuttlefishError, match="no tensor that has a gradient"):
        will_it_pay(network(), IMAGES, repeats=1, forward=lambda model, images: model(images).detach())
