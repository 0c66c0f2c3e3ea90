"""Models that are no plain stack of layers: routed experts, lists of images, graphs, layers shared or frozen."""

import copy
import gc
import pickle

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel

import cuttlefish
from cuttlefish import Cuttlefish, CuttlefishError, LowRankLinear
from tests.helpers.little_networks import IMAGES, network, step

FIXED = {"k": 1, "switch_epoch": 1, "rank_ratio": 0.25}
X, Y = torch.randn(64, 16, generator=torch.Generator().manual_seed(2)), torch.arange(64) % 3


class Experts(nn.Module):
    """Sends each sample to one of four networks."""

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(32, 4)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32)) for _ in range(4)
        )

    def forward(self, x):
        chosen = self.router(x).argmax(-1)
        out = x.clone()
        for index, expert in enumerate(self.experts):
            if (chosen == index).any():
                out[chosen == index] += expert(x[chosen == index])
        return out


def dense(*layers):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), *(layer() for layer in layers), nn.Linear(32, 3))


def train(model, optimizer, steps=3):
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(model(X), Y).backward()
        optimizer.step()


def told(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "cuttlefish"]


def test_experts_that_two_samples_do_not_reach_are_found():
    model = dense(Experts)
    cf = Cuttlefish(model, X, **FIXED)
    every = {f"1.experts.{expert}.{layer}" for expert in range(4) for layer in (0, 2)}
    assert every <= set(cf.layers)
    with torch.no_grad():  # all go to one expert now: the others do not run at the switch
        model[1].router.bias[2] = 1e3
    assert cf.epoch_end() and all(type(model.get_submodule(name)) is LowRankLinear for name in every)


def test_layers_that_do_not_run_are_named():
    model = dense(Experts)
    with torch.no_grad():
        model[1].router.bias[2] = 1e3
    cf = Cuttlefish(model, X, **FIXED)
    assert cf.kept_dense["1.experts.0.2"] == "the model does not call it on this batch"
    rows = {row.layer: row.reason for row in cuttlefish.explain(model, X)}
    assert rows["1.experts.0.2"] == "the model does not call it on this batch" and rows["1.experts.2.2"] == ""


def test_shortcuts_are_named():
    cf = Cuttlefish(torchvision.models.resnet18(), torch.randn(2, 3, 32, 32), k=1, switch_epoch=1)
    assert "1×1 shortcut" in cf.kept_dense["layer2.0.downsample.0"]


class Detector(nn.Module):
    """Takes a list of images and puts out as many boxes as score above zero."""

    def __init__(self):
        super().__init__()
        self.body = network()[:9]
        self.head = nn.Linear(24, 5)

    def forward(self, images):
        found = self.head(torch.stack([self.body(image[None]).mean((2, 3))[0] for image in images]))
        return [{"boxes": found[found[:, 4] > 0, :4]}]


def test_a_list_of_images_is_not_cut_by_their_channels():
    cf = Cuttlefish(Detector(), ([image for image in IMAGES[:3]],), **FIXED)
    assert cf.layers == ["body.3", "body.6"] and cf.epoch_end()


class Graph(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = dense(lambda: nn.Linear(32, 32))

    def forward(self, nodes, edges):
        for layer in self.layers:
            nodes = layer(nodes).index_add(0, edges[1], layer(nodes)[edges[0]])
        return nodes


def test_a_graph_is_taken_whole():
    edges = torch.stack([torch.arange(64), torch.arange(64).flip(0)])
    cf = Cuttlefish(Graph(), (X, edges), **FIXED)
    report = cf.epoch_end()
    assert report and report.difference > 0


def test_outputs_that_hold_no_tensors_are_not_called_equal():
    class Answer(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = dense(lambda: nn.Linear(32, 32))

        def forward(self, x):
            return type("Output", (), {"logits": self.body(x)})()

    report = Cuttlefish(Answer(), X, **FIXED).epoch_end()
    assert report and report.difference is None


def test_a_model_that_has_changed_its_type_still_switches(caplog):
    model = dense(lambda: nn.Linear(32, 32))
    cf = Cuttlefish(model, X, **FIXED)
    model.double()
    assert cf.epoch_end() and "the model no longer runs on the batch" in told(caplog)[0]


def test_layers_frozen_half_way_are_left_alone():
    model = dense(lambda: nn.Linear(32, 32), lambda: nn.Linear(32, 32))
    cf = Cuttlefish(model, X, **FIXED)
    model[2].requires_grad_(False)
    assert cf.epoch_end() and type(model[2]) is nn.Linear
    assert cf.kept_dense["2"] == "it has been frozen"


def test_a_layer_that_two_models_share_is_named(caplog):
    shared = nn.Linear(32, 32)
    actor, critic = dense(lambda: shared), dense(lambda: shared)
    cf = Cuttlefish(actor, X, **FIXED)
    optimizer = cf.optimizer(SGD(actor.parameters(), lr=0.1))
    train(actor, optimizer)
    assert cf.epoch_end() and critic[1] is shared
    train(actor, optimizer)
    assert told(caplog)[-1].startswith("a Sequential outside the model shared 1.weight")


def test_averages_of_other_models_are_their_own_matter(caplog):
    other = nn.Sequential(nn.Linear(16, 32), nn.Linear(32, 64), nn.Linear(64, 3))
    average = AveragedModel(other)
    model = dense(lambda: nn.Linear(32, 32))
    cf = Cuttlefish(model, X, **FIXED)
    optimizer = cf.optimizer(SGD(model.parameters(), lr=0.1))
    train(model, optimizer)
    assert cf.epoch_end()
    train(model, optimizer)
    assert told(caplog) == [] and average.module is not other


def test_a_resumed_low_rank_run_is_not_said_to_be_dense(caplog):
    cf = Cuttlefish(network(), IMAGES, **FIXED)
    assert cf.epoch_end()
    again = Cuttlefish.resume(network, cf.state_dict())
    step(again.model, SGD(again.param_groups(0.1), lr=0.1), again)
    del cf, again
    gc.collect()
    assert told(caplog) == []


def test_the_object_itself_is_neither_copied_nor_pickled():
    cf = Cuttlefish(network(), IMAGES, **FIXED)
    for copied in (copy.deepcopy, pickle.dumps):
        with pytest.raises(CuttlefishError, match="cannot be copied or pickled: keep its state_dict"):
            copied(cf)
