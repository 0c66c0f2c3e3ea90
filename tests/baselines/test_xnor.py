"""XNOR-Net in a network: which layers, the moved batch norms, stored bits, latent weights through
training."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from timm.layers import ConvNormAct
from torch import nn
from torch.nn import functional as F

from baselines.xnor.binary import BinaryConv2d, centre_and_clamp
from baselines.xnor.method import Settings, Xnor, binary_weights, convolutions, insert_units, plan
from cuttlefish.config.recipe import OptimizerConfig, RecipeConfig
from cuttlefish.engine.saving.checkpoint import newest_checkpoint
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.count import count_parameters
from cuttlefish.methods import planned_epochs
from cuttlefish.models.resnet_cifar import ResNet
from cuttlefish.models.vgg_cifar import Vgg19
from cuttlefish.worker import run_config
from tests.helpers.runs import little_config

IMAGE = torch.zeros(1, 3, 32, 32)


def run(folder, **knobs):
    return run_config(replace(little_config(folder), method={"name": "xnor", **knobs}))


def binarised(network, last=False, width=8):
    torch.manual_seed(0)
    model = network(10, width=width)
    norms = plan(model, IMAGE)
    insert_units(model, norms, last=last)
    return model


@pytest.mark.parametrize(
    ("network", "total", "layers", "binary", "filters", "last", "ratio"),
    [
        (ResNet, 11_172_170, 18, 8_798_208, 4_224, "layer4.1.conv2", 4.21),
        (Vgg19, 20_034_122, 14, 17_657_856, 4_928, "features.49", 6.83),
    ],
)
def test_sizes_and_layers_of_the_reference_s_networks(network, total, layers, binary, filters, last, ratio):
    with torch.device("meta"):
        model = network(10)
    norms = plan(model, IMAGE.to("meta"))
    insert_units(model, norms)
    latent = binary_weights(model)
    assert sum(parameter.numel() for parameter in model.parameters()) == total
    assert len(latent) == layers and sum(tensor.numel() for tensor in latent) == binary
    assert list(norms)[-1] == last and not model.get_submodule(last).binary and len(norms) == layers + 1
    bits = binary + 32 * filters + 32 * (total - binary)
    assert round(32 * total / bits, 2) == ratio
    wide = network(10, width=8)
    insert_units(wide, plan(wide, IMAGE))
    ours = binary_weights(wide)
    stored = sum(tensor.numel() + 32 * len(tensor) for tensor in ours)
    stored += 32 * (count_parameters(wide).total - sum(tensor.numel() for tensor in ours))
    assert Xnor(Settings()).stored_bits(wide) == stored


def test_stored_bits_of_resnet18_and_its_last_convolution():
    assert Xnor(Settings()).stored_bits(binarised(ResNet, width=64)) == 84_900_160
    all_but_first = Xnor(Settings()).stored_bits(binarised(ResNet, last=True, width=64))
    assert 32 * 11_172_170 / all_but_first > 25


def test_norms_move_before_their_convolutions_and_nothing_else():
    model = Vgg19(10, width=4)
    convs = dict(enumerate(module for module in model.features if isinstance(module, nn.Conv2d)))
    stem_norm = model.features[1]
    insert_units(model, plan(model, IMAGE))
    units = [module for module in model.features if isinstance(module, BinaryConv2d)]
    assert model.features[0] is convs[0] and model.features[1] is stem_norm
    assert [unit.conv for unit in units] == list(convs.values())[1:]
    assert [unit.bn.num_features for unit in units] == [conv.in_channels for conv in list(convs.values())[1:]]
    assert all(unit.bn.eps == 1e-4 for unit in units)
    behind = [
        model.features[index + 1]
        for index, module in enumerate(model.features)
        if isinstance(module, BinaryConv2d)
    ]
    assert len(behind) == 15 and all(isinstance(module, nn.Identity) for module in behind)
    assert [unit.binary for unit in units] == [True] * 14 + [False]


def test_a_batch_norm_with_an_activation_leaves_its_activation():
    layers = [nn.Conv2d(3, 4, 3), *(ConvNormAct(4, 4) for _ in range(3))]
    model = nn.Sequential(*layers)
    activations = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    insert_units(model, plan(model, IMAGE))
    executed = []
    for activation in activations:
        activation.register_forward_hook(lambda module, *_: executed.append(module))
    assert (model(IMAGE) >= 0).all() and executed == activations and len(activations) == 3

    class Odd(nn.BatchNorm2d):
        def forward(self, x):
            return 2 * super().forward(x)

    odd = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), Odd(4), nn.Conv2d(4, 4, 3))
    with pytest.raises(CuttlefishError, match="cannot move batch norm '2' .* Odd with behaviour of its own"):
        plan(odd, IMAGE)


def test_norms_are_found_by_what_they_read_not_by_name():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.late, self.early, self.plain = nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)
            self.b, self.a = nn.Conv2d(4, 4, 1), nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.plain(F.relu(self.late(self.b(F.relu(self.early(self.a(x)))))))

    assert convolutions(Odd(), IMAGE) == {"a": "early", "b": "late", "plain": None}


@pytest.mark.parametrize("last", [False, True])
def test_first_and_last_layers_and_norms_stay_as_they_are(last):
    torch.manual_seed(0)
    model = ResNet(10, width=8)
    kept = ["conv1.weight", "bn1.weight", "bn1.bias", "fc.weight", "fc.bias"]
    before = copy.deepcopy(model.state_dict())
    insert_units(model, plan(model, IMAGE), last=last)
    centre_and_clamp(binary_weights(model))
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in kept)
    assert torch.equal(after["layer4.1.conv2.conv.weight"], before["layer4.1.conv2.weight"]) is not last
    assert not torch.equal(after["layer4.1.conv1.conv.weight"], before["layer4.1.conv1.weight"])
    assert "layer3.0.shortcut.0.bn.weight" in after and "layer3.0.shortcut.1.weight" not in after


def test_evaluation_leaves_the_latent_weights_alone():
    model = binarised(ResNet).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model(torch.randn(4, 3, 16, 16))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_training_keeps_latent_weights_centred_and_saved(tmp_path):
    record = run(tmp_path)
    state = newest_checkpoint(tmp_path / "checkpoints")["model"]
    latent = [
        value
        for name, value in state.items()
        if name.endswith("conv.weight") and "layer4.1.conv2" not in name
    ]
    assert len(latent) == record.extra["binary_layers"] == 18
    for tensor in latent:
        assert tensor.abs().max() <= 1 and tensor.unique().numel() > tensor.shape[0] * 3, (
            "not the binary ones"
        )
        assert torch.allclose(tensor.mean(1), torch.zeros(()), atol=1e-6)
    binary = sum(tensor.numel() + 32 * len(tensor) for tensor in latent)
    assert record.params_stored_bits == binary + 32 * (record.params_total - record.extra["binary_weights"])
    assert sum(tensor.numel() for tensor in latent) == record.extra["binary_weights"]


def test_it_learns_with_its_own_optimizer_and_schedule(tmp_path):
    config = replace(
        little_config(tmp_path), method={"name": "xnor", "extra_epoch": True, "learning_rate": 0.01}
    )
    record = run_config(config)
    state = newest_checkpoint(tmp_path / "checkpoints")
    assert record.epochs_trained == planned_epochs(config.method, config.recipe) == 5
    assert state["progress"]["last"]["lr"] == 0.0
    assert {group["betas"] for group in state["optimizer"]["param_groups"]} == {(0.9, 0.999)}
    [phase] = Xnor(Settings()).phases(SimpleNamespace(recipe=RecipeConfig(epochs=300)))
    assert [round(phase.schedule.lr(epoch), 9) for epoch in (0, 150, 300)] == [1e-3, 5e-4, 0.0]
    assert phase.optimizer == OptimizerConfig("adamw", weight_decay=1e-4)
    other = Settings(learning_rate=0.02, weight_decay=0.3)
    [phase] = Xnor(other).phases(SimpleNamespace(recipe=RecipeConfig(epochs=2)))
    assert (phase.schedule.lr(0), phase.schedule.lr(1), phase.optimizer.weight_decay) == (0.02, 0.01, 0.3)


def test_decay_on_everything_is_the_original_s():
    model = binarised(ResNet)
    clean, original = (
        Xnor(Settings()).param_groups(model, 0.1),
        Xnor(Settings(decay_all=True)).param_groups(model, 0.1),
    )
    assert [len(group["params"]) for group in original] == [len(list(model.parameters()))]
    assert {parameter.ndim >= 2 for parameter in clean[0]["params"]} == {True} and clean[1][
        "weight_decay"
    ] == 0


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 3)],
            "'1': it is a depthwise convolution",
        ),
        ([nn.Conv2d(3, 1, 3), nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)], "'1': with one input channel"),
        ([nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)], "this model has none there"),
        ([nn.Flatten(), nn.Linear(3072, 4)], "this model has none there"),
    ],
)
def test_models_it_cannot_treat_are_refused(layers, message):
    with pytest.raises(CuttlefishError, match=message):
        plan(nn.Sequential(*layers), IMAGE)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [({"learning_rate": 0.0}, "must be above 0"), ({"weight_decay": -1.0}, "weight_decay")],
)
def test_bad_input_is_refused_before_training(tmp_path, knobs, message):
    with pytest.raises(CuttlefishError, match=message):
        run(tmp_path, **knobs)
    assert not (tmp_path / "checkpoints").exists()
