"""Channel surgery: which chains are found, and that the smaller network is the masked one."""

from copy import deepcopy

import pytest
import timm
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from baselines.eb.channels import find_chains, gammas, mask_channels, slim, slim_size
from cuttlefish.lowrank.count import count_macs, count_parameters
from cuttlefish.models.resnet_cifar import ResNet
from cuttlefish.models.vgg_cifar import Vgg19

IMAGES = torch.randn(6, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def bottleneck():
    return torchvision.models.ResNet(
        torchvision.models.resnet.Bottleneck, [2, 1, 1, 1], num_classes=4, width_per_group=8
    )


def vgg_with_wide_classifier():
    """As torchvision's: conv biases, in-place activations, 7 × 7 features a channel in the classifier;
    without its random drops."""
    features = torchvision.models.vgg.make_layers([8, "M", 16, 16, "M"], batch_norm=True)
    classifier = nn.Sequential(nn.Linear(16 * 49, 12), nn.ReLU(True), nn.Linear(12, 4))
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(7), nn.Flatten(), classifier)


MODELS = {
    "vgg19": lambda: Vgg19(4, width=4),
    "resnet18": lambda: ResNet(4, width=8),
    "bottleneck": bottleneck,
    "torchvision vgg": vgg_with_wide_classifier,
    "timm resnet": lambda: timm.create_model("test_resnet", num_classes=4),
}


def build(name, seed=0):
    """A model in float64 whose norms are anything but their initial ones."""
    torch.manual_seed(seed)
    model = MODELS[name]().double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model


def random_masks(chains, seed):
    generator = torch.Generator().manual_seed(seed)
    masks = [torch.rand(chain.channels, generator=generator) < 0.5 for chain in chains]
    return [mask if mask.any() else ~mask for mask in masks]


@pytest.mark.parametrize("name", MODELS)
def test_slim_equals_masked_in_both_modes(name):
    model = build(name)
    chains = find_chains(model, IMAGES)
    masks = random_masks(chains, seed=3)
    masked, small = mask_channels(deepcopy(model), chains, masks), slim(deepcopy(model), chains, masks)
    for train in (True, False):  # training first: the running statistics it leaves must agree too
        expected = masked.train(train)(IMAGES)
        torch.testing.assert_close(small.train(train)(IMAGES), expected, rtol=1e-8, atol=1e-8)
        assert float((model.train(train)(IMAGES) - expected).detach().abs().max()) > 1e-3, "the masks matter"
    assert (
        count_parameters(small).total
        == slim_size(model, chains, [int(mask.sum()) for mask in masks])
        < count_parameters(model).total
    )


@pytest.mark.parametrize("name", ["vgg19", "resnet18"])
def test_gradients_of_what_is_kept_are_the_masked_ones(name):
    model = build(name)
    chains = find_chains(model, IMAGES)
    masks = random_masks(chains, seed=5)
    masked, small = mask_channels(deepcopy(model), chains, masks), slim(deepcopy(model), chains, masks)
    for net in (masked, small):
        net(IMAGES).square().sum().backward()
    for chain, mask in zip(chains, masks, strict=True):
        expected = masked.get_submodule(chain.norm).weight.grad[mask]
        torch.testing.assert_close(
            small.get_submodule(chain.norm).weight.grad, expected, rtol=1e-6, atol=1e-6
        )


def test_beta_left_standing_would_break_it():
    model = build("vgg19")
    chains = find_chains(model, IMAGES)
    masks = random_masks(chains, seed=3)
    half = deepcopy(model)
    with torch.no_grad():
        for scale, mask in zip(gammas(half, chains), masks, strict=True):
            scale.mul_(mask)
    small = slim(deepcopy(model), chains, masks).eval()
    assert float((half.eval()(IMAGES) - small(IMAGES)).detach().abs().max()) > 1e-3


def test_only_channels_that_nothing_else_reads():
    assert {chain.norm for chain in find_chains(ResNet(4, width=8), torch.zeros(2, 3, 16, 16))} == {
        f"layer{i}.{j}.bn1" for i in range(1, 5) for j in range(2)
    }, "not the stem, not what goes into a sum, not the shortcut"
    found = {chain.norm: chain.readers for chain in find_chains(bottleneck(), torch.zeros(2, 3, 32, 32))}
    inside = {
        f"layer{i}.{j}.bn{k}"
        for i, blocks in ((1, 2), (2, 1), (3, 1), (4, 1))
        for j in range(blocks)
        for k in (1, 2)
    }
    assert found.keys() == {"bn1"} | inside
    assert set(found["bn1"]) == {"layer1.0.conv1", "layer1.0.downsample.0"}, (
        "this stem feeds no sum, only convolutions"
    )
    vgg = find_chains(Vgg19(4, width=4), torch.zeros(2, 3, 32, 32))
    assert len(vgg) == 16 and vgg[-1].readers == ("classifier",) and vgg[-1].spans == (1,)
    wide = find_chains(vgg_with_wide_classifier(), torch.zeros(2, 3, 32, 32))
    assert len(wide) == 3 and wide[-1].readers == ("3.0",) and wide[-1].spans == (49,)


class Block(nn.Module):
    """conv, BN, then whatever `then` does with it."""

    def __init__(self, then, reader=None):
        super().__init__()
        self.conv, self.norm, self.then = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), then
        self.reader = reader or nn.Conv2d(8, 2, 3)
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        return self.then(self, self.norm(self.conv(x)))


ALLOWED = {
    "two readers": lambda net, y: (
        net.reader(F.relu(y)).mean((1, 2, 3)) + net.fc(F.silu(y).mean((2, 3))).sum(1)
    ),
    "in place": lambda net, y: net.reader(F.max_pool2d(F.relu(y, inplace=True), 2)),
    "size asked": lambda net, y: net.fc(F.adaptive_avg_pool2d(y, 1).view(y.size(0), y.shape[1])),
    "a sum that masked channels do not change": lambda net, y: net.reader(y) * y.sum().item(),
    "negative axes": lambda net, y: net.fc(y.mean(dim=[-2, -1])),
}
REFUSED = {
    "sigmoid of zero is not zero": lambda net, y: net.reader(torch.sigmoid(y)),
    "added to something": lambda net, y: net.reader(y + 1),
    "added in place": lambda net, y: net.reader(y.add_(torch.ones(()))),
    "returned too": lambda net, y: (net.reader(y), y),
    "channels mixed": lambda net, y: net.reader(y.flip(1)),
    "mean over channels": lambda net, y: y.mean((1, 2, 3)),
    "mean over all": lambda net, y: net.reader(y) * y.mean(),
    "softmax": lambda net, y: net.reader(y.softmax(1)),
    "called twice": lambda net, y: net.reader(y)[:, :1] + net.reader(y)[:, 1:],
    "norm called twice": lambda net, y: net.reader(net.norm(y)),
    "permuted": lambda net, y: net.fc(y.permute(0, 2, 3, 1)),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_uses_that_allow_removal(case):
    torch.manual_seed(0)
    model = Block(ALLOWED[case]).double()
    nn.init.normal_(model.norm.bias)
    chains = find_chains(model, IMAGES)
    assert [chain.norm for chain in chains] == ["norm"]
    masks = [torch.tensor([True, False, False, True, True, False, True, False])]
    masked, small = mask_channels(deepcopy(model), chains, masks), slim(deepcopy(model), chains, masks)
    for train in (False, True):
        torch.testing.assert_close(
            small.train(train)(IMAGES), masked.train(train)(IMAGES), rtol=1e-8, atol=1e-8
        )


@pytest.mark.parametrize("case", REFUSED)
def test_uses_that_forbid_it(case):
    assert find_chains(Block(REFUSED[case]).double(), IMAGES) == []


def test_grouped_tied_and_shared_layers_are_left_alone():
    grouped = Block(lambda net, y: net.reader(y), nn.Conv2d(8, 8, 3, groups=8)).double()
    assert find_chains(grouped, IMAGES) == [], "a depthwise convolution needs as many inputs as it has"
    tied = Block(lambda net, y: net.reader(y), nn.Conv2d(8, 8, 3)).double()
    tied.other = nn.Conv2d(8, 8, 3)
    tied.other.weight = tied.reader.weight
    assert find_chains(tied, IMAGES) == []
    plain = Block(lambda net, y: net.reader(y)).double()
    plain.norm = nn.BatchNorm2d(8, affine=False).double()
    assert find_chains(plain, IMAGES) == []


def test_input_and_classes_are_never_touched():
    for name in ("vgg19", "resnet18"):
        model = build(name)
        chains = find_chains(model, IMAGES)
        slim(model, chains, [torch.arange(chain.channels) == 0 for chain in chains])
        first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
        last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
        assert first.in_channels == 3 and last.out_features == 4 and model(IMAGES).shape == (6, 4)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**31))
def test_counts_follow_from_the_channel_list(seed):
    """VGG: parameters and multiply-accumulates written down from the kept channels alone."""
    model = Vgg19(4, width=4)
    chains = find_chains(model, torch.zeros(2, 3, 32, 32))
    masks = random_masks(chains, seed)
    kept = [int(mask.sum()) for mask in masks]
    side = [32] * 2 + [16] * 2 + [8] * 4 + [4] * 4 + [2] * 4
    pairs = list(zip([3, *kept], kept, strict=False))
    parameters = sum(9 * a * b + 2 * b for a, b in pairs) + 4 * kept[-1] + 4
    macs = sum(9 * a * b * s * s for (a, b), s in zip(pairs, side, strict=True)) + 4 * kept[-1]
    assert slim_size(model, chains, kept) == parameters
    slim(model, chains, masks)
    assert (
        count_parameters(model).total == parameters and count_macs(model, torch.zeros(1, 3, 32, 32)) == macs
    )


def test_state_dict_of_the_small_network_fits_one_slimmed_alike():
    model, other = build("resnet18"), build("resnet18", seed=9)
    chains = find_chains(model, IMAGES)
    masks = random_masks(chains, seed=2)
    slim(model, chains, masks)
    slim(other, find_chains(other, IMAGES), masks).load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(IMAGES), other.eval()(IMAGES))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_watching_changes_nothing():
    model = build("vgg19").train()
    before = deepcopy(model.state_dict())
    find_chains(model, IMAGES)
    assert model.training and all(
        torch.equal(before[name], tensor) for name, tensor in model.state_dict().items()
    )
