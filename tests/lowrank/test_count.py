"""Counts against hand arithmetic and against the numbers audited from the paper's reference code."""

import copy

import pytest
import timm
import torch
from torch import nn

from cuttlefish.lowrank.count import Counts, count_macs, count_parameters
from cuttlefish.lowrank.surgery import factorize, find_layers


class Block(nn.Module):
    def __init__(self, inner, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inner, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or inner != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inner, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x):
        return self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).add(self.shortcut(x)).relu()


def resnet18(classes=10):
    """CIFAR ResNet-18 in four stages: the stem is '0', the blocks '2.0' to '9.0', written flat."""
    blocks, inner = [], 64
    for width, stride in [(64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)]:
        blocks.append(Block(inner, width, stride))
        inner = width
    stem = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


def vgg19(classes=10):
    layers, inner = [], 3
    for width in [
        64,
        64,
        0,
        128,
        128,
        0,
        256,
        256,
        256,
        256,
        0,
        512,
        512,
        512,
        512,
        0,
        512,
        512,
        512,
        512,
        0,
    ]:
        if width == 0:
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(inner, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        inner = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, classes))


def on_meta(build, *arguments, **options):
    with torch.device("meta"):
        return build(*arguments, **options)


def low_rank(model, first, rank, extra_bn=False, last=-1):
    """Factorize the 3×3 convolutions from number `first` (the stem is 1) on, each to rank(out, full rank)."""
    convs = [
        (name, layer)
        for name, layer in find_layers(model).layers.items()
        if getattr(layer, "kernel_size", 0) == (3, 3)
    ]
    ranks = {name: rank(layer.out_channels) for name, layer in convs[first - 1 :]}
    return factorize(model, ranks, extra_bn=extra_bn, keep_dense=False, initialise=False)


def quarter(out):
    return out // 4


def full(out):
    return out


def test_shared_and_frozen_parameters_zeros_and_bits():
    shared = nn.Linear(4, 4, bias=False)
    model = nn.Sequential(shared, shared, nn.Linear(4, 2).to(torch.bfloat16), nn.BatchNorm1d(2))
    shared.weight.requires_grad_(False)
    nn.init.constant_(shared.weight, 1.0)
    with torch.no_grad():
        shared.weight[0] = 0
        model[2].weight.fill_(1)
        model[2].bias.fill_(1)
    total = 16 + (8 + 2) + (2 + 2)
    assert count_parameters(model) == Counts(total, total - 16, total - 4 - 2, 32 * 16 + 16 * 10 + 32 * 4)


def test_a_model_without_parameters():
    assert count_parameters(nn.ReLU()) == Counts(0, 0, 0, 0)


def total(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("build", "first", "rank", "extra_bn", "expected"),
    [
        (resnet18, 99, full, False, {10: 11_173_962, 100: 11_220_132}),
        (resnet18, 6, full, False, {10: 12_550_218, 100: 12_596_388}),
        (resnet18, 4, quarter, False, {10: 3_336_266, 100: 3_382_436}),
        (resnet18, 4, quarter, True, {10: 3_338_122, 100: 3_384_292}),
        (vgg19, 99, full, False, {10: 20_035_018, 100: 20_081_188}),
        (vgg19, 10, quarter, False, {10: 8_107_466, 100: 8_153_636}),
        (vgg19, 10, quarter, True, {10: 8_109_258, 100: 8_155_428}),
        (vgg19, 5, quarter, False, {10: 5_805_514, 100: 5_851_684}),
    ],
)
@pytest.mark.parametrize("classes", [10, 100])
def test_audited_parameter_counts_of_the_cifar_networks(build, first, rank, extra_bn, expected, classes):
    model = low_rank(on_meta(build, classes), first, rank, extra_bn)
    assert total(model) == expected[classes]


def test_the_audited_size_formula_of_resnet18():
    """335,946 + Σ r·(9·in + out), with another rank for every layer."""
    ranks = iter(range(7, 19))
    model = low_rank(on_meta(resnet18), 6, lambda out: next(ranks))
    costs = [704, 1280, 1280, 1280, 1408, 2560, 2560, 2560, 2816, 5120, 5120, 5120]
    assert total(model) == 335_946 + sum(cost * rank for cost, rank in zip(costs, range(7, 19), strict=True))


def test_audited_spatial_size_of_resnet18():
    """SI&FD at rank scale 0.08: ranks 15, 31, 61, 123 in the four stages, 2,069,130 parameters."""
    ranks = {64: 15, 128: 31, 256: 61, 512: 123}
    model = on_meta(resnet18)
    convs = [
        name
        for name, layer in find_layers(model).layers.items()
        if getattr(layer, "kernel_size", 0) == (3, 3)
    ][1:]
    chosen = {name: ranks[model.get_submodule(name).out_channels] for name in convs}
    assert total(factorize(model, chosen, scheme="spatial", initialise=False)) == 2_069_130


def bottleneck_ranks(model, floor, wide):
    """Audited floors: one rank for all of the last stage, another for its first block's last convolution."""
    names = [name for name in find_layers(model).layers if name.startswith("layer4")]
    return {
        name: wide if name == "layer4.0.conv3" else floor for name in names if "downsample" not in name
    }, "layer4.0.downsample.0"


@pytest.mark.parametrize(
    ("name", "dense", "floor", "wide", "expected", "expected_bn"),
    [
        ("resnet50", 25_557_032, 102, 204, 14_218_280, 14_220_320),
        ("wide_resnet50_2", 68_883_240, 204, 204, 37_385_000, 37_388_672),
    ],
)
def test_audited_counts_of_the_imagenet_networks(name, dense, floor, wide, expected, expected_bn):
    for extra_bn, size in ((False, expected), (True, expected_bn)):
        model = on_meta(timm.create_model, name, pretrained=False)
        assert total(model) == dense
        ranks, downsample = bottleneck_ranks(model, floor, wide)
        factorize(model, ranks, extra_bn=extra_bn, initialise=False)
        assert total(factorize(model, {downsample: floor}, initialise=False)) == size


def test_audited_count_of_deit_base():
    """The audited 58,269,928 holds a bias on each of the 36 first factors (rank 384), which ours has not."""
    model = on_meta(timm.create_model, "deit_base_patch16_224", pretrained=False)
    assert total(model) == 86_567_656
    names = [name for name in find_layers(model).layers if name.endswith(("qkv", "fc1", "fc2"))]
    assert total(factorize(model, dict.fromkeys(names, 384), initialise=False)) == 58_269_928 - 36 * 384


@pytest.mark.parametrize(
    ("build", "first", "millions"),
    [(resnet18, 99, 555.4), (resnet18, 4, 216.2), (vgg19, 99, 398.1), (vgg19, 10, 289.1), (vgg19, 5, 181.1)],
)
def test_audited_macs(build, first, millions):
    model = low_rank(on_meta(build), first, quarter)
    assert count_macs(model, torch.empty(1, 3, 32, 32, device="meta")) / 1e6 == pytest.approx(
        millions, abs=0.05
    )


def test_macs_by_hand():
    """Grouped and strided convolutions, and a Linear, on two 9×7 images."""
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, groups=2, bias=False), nn.Conv2d(8, 6, 1), nn.Flatten(), nn.Linear(72, 5)
    )
    pixels = 4 * 3
    assert count_macs(model, torch.randn(2, 4, 9, 7)) == 2 * (pixels * 8 * 2 * 9 + pixels * 6 * 8 + 72 * 5)


def test_macs_of_both_factorizations():
    for scheme, expected in (("channel", 25 * 3 * (4 * 9 + 6)), ("spatial", 25 * 3 * (4 * 3 + 6 * 3))):
        model = factorize(
            nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, bias=False)),
            {"0": 3},
            scheme=scheme,
            keep_dense=False,
        )
        assert count_macs(model, torch.randn(1, 4, 5, 5)) == expected


def test_attention_is_counted_on_every_path():
    """Fused attention kernels and torch's fast path would count as nothing."""
    tokens, d, hidden = 5, 16, 32
    attention = 2 * tokens * tokens * d
    layer = nn.TransformerEncoderLayer(d, 2, hidden, batch_first=True)
    expected = tokens * (4 * d * d + 2 * d * hidden) + attention
    assert count_macs(layer, torch.randn(1, tokens, d)) == expected
    assert torch.backends.mha.get_fastpath_enabled()
    vit = timm.create_model(
        "vit_tiny_patch16_224", pretrained=False, depth=1, img_size=16, patch_size=8, num_classes=3
    )
    patches, d = 4, 192
    block = 5 * 12 * d * d + 2 * 5 * 5 * d
    assert count_macs(vit, torch.randn(1, 3, 16, 16)) == patches * 3 * 64 * d + block + d * 3


def test_counting_leaves_no_trace():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 2, 1))
    model[3].eval()
    before, flags = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    state = torch.get_rng_state()
    count_macs(model, torch.zeros(1, 3, 5, 5))
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    assert [module.training for module in model.modules()] == flags == [True, True, True, True, False]
    assert torch.equal(state, torch.get_rng_state()) and all(p.grad is None for p in model.parameters())


def test_training_flags_are_put_back_when_the_model_fails():
    model = nn.Sequential(nn.Linear(3, 3))
    with pytest.raises(RuntimeError):
        count_macs(model, torch.zeros(1, 4))
    assert model.training and model[0].training and torch.backends.mha.get_fastpath_enabled()
