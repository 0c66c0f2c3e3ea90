"""Hooks and attributes of a layer go over to what takes its place."""

import torch
from torch import nn

from cuttlefish import factorize


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))


def test_hooks_go_on_and_can_be_removed():
    network, seen = model(), []
    handles = [
        network[1].register_forward_hook(lambda module, inputs, output: seen.append("forward")),
        network[1].register_forward_pre_hook(
            lambda module, inputs, named: seen.append("pre"), with_kwargs=True
        ),
        network[1].register_full_backward_hook(lambda module, given, got: seen.append("backward")),
    ]
    factorize(network, {"1": 3})
    network(torch.ones(2, 8)).sum().backward()
    assert seen == ["pre", "forward", "backward"]
    for handle in handles:
        handle.remove()
    network(torch.ones(2, 8)).sum().backward()
    assert len(seen) == 3


def test_attributes_of_parameters_go_over():
    network = model()
    network[1].weight.no_decay, network[1].bias.group = True, "bias"
    factorize(network, {"1": 3})
    assert network[1].first.weight.no_decay and network[1].second.weight.no_decay
    assert network[1].bias.group == "bias" and not hasattr(network[1].bias, "no_decay")


def test_gradient_hooks_of_a_weight_are_named(caplog):
    network = model()
    network[1].weight.register_hook(lambda gradient: gradient * 2)
    factorize(network, {"1": 3})
    assert "1.weight had gradient hooks" in caplog.text
    network[0].weight.register_post_accumulate_grad_hook(lambda parameter: None)
    factorize(network, {"0": 3})
    assert "0.weight had gradient hooks" in caplog.text
