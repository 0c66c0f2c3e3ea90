from math import sqrt

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cuttlefish.config.schema import ModelConfig
from cuttlefish.models import build_model

SHAPE = (3, 32, 32)


def suite(
    name: str, classes: int = 10, width: int | None = None, shape: tuple[int, int, int] = SHAPE
) -> nn.Module:
    torch.manual_seed(0)
    return build_model(ModelConfig(name=name, width=width), classes, shape)


def randomise(model: nn.Module) -> nn.Module:
    """Batch normalisation that does something."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                nn.init.normal_(tensor, 0, 0.2)
    return model


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("resnet18", 10, 11_173_962),
        ("resnet18", 100, 11_220_132),
        ("vgg19", 10, 20_035_018),
        ("vgg19", 100, 20_081_188),
    ],
)
def test_parameter_counts(name, classes, parameters):
    assert sum(parameter.numel() for parameter in suite(name, classes).parameters()) == parameters


@pytest.mark.parametrize(("name", "millions"), [("resnet18", 555.4), ("vgg19", 398.1)])
def test_multiply_accumulates(name, millions):
    model = suite(name)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(2, *SHAPE))
    assert counter.get_total_flops() / 2 / 2 / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("training", [False, True])
def test_resnet_is_torchvisions_with_another_stem(training):
    model = randomise(suite("resnet18", width=64)).train(training)
    other = torchvision.models.resnet18(num_classes=10)
    other.conv1, other.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    other.load_state_dict(
        {name.replace("shortcut", "downsample"): value for name, value in model.state_dict().items()}
    )
    images = torch.randn(4, *SHAPE)
    torch.testing.assert_close(model(images), other.train(training)(images))


@pytest.mark.parametrize("training", [False, True])
def test_vgg_is_torchvisions_with_an_average_at_the_end(training):
    model = randomise(suite("vgg19")).train(training)
    other = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["E"], batch_norm=True)
    other[-1] = nn.AvgPool2d(2)
    for layer in other:
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.bias)
    other.load_state_dict(model.features.state_dict(), strict=False)
    images = torch.randn(4, *SHAPE)
    torch.testing.assert_close(model(images), model.classifier(other.train(training)(images).flatten(1)))


def test_resnet_names_and_shapes():
    modules = dict(suite("resnet18").named_modules())
    assert list(modules["layer1.0"]._modules) == ["conv1", "bn1", "conv2", "bn2", "shortcut"]
    convolutions = {
        name: tuple(module.weight.shape) for name, module in modules.items() if isinstance(module, nn.Conv2d)
    }
    assert len(convolutions) == 1 + 16 + 3
    assert convolutions["conv1"] == (64, 3, 3, 3)
    assert convolutions["layer3.0.shortcut.0"] == (256, 128, 1, 1)
    assert modules["layer4.0.conv1"].stride == (2, 2) and modules["layer4.1.conv1"].stride == (1, 1)
    assert modules["fc"].in_features == 512
    assert all(module.bias is None for module in modules.values() if isinstance(module, nn.Conv2d))


def test_vgg_names_and_shapes():
    model = suite("vgg19")
    outputs = [module.out_channels for module in model.features if isinstance(module, nn.Conv2d)]
    assert outputs == [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8
    assert sum(isinstance(module, nn.MaxPool2d) for module in model.features) == 4
    assert model.classifier.in_features == 512


def test_resnet_is_initialised_as_pytorch_does():
    torch.manual_seed(3)
    expected = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    torch.manual_seed(3)
    model = build_model(ModelConfig(), 10, SHAPE)
    assert torch.equal(model.conv1.weight, expected.weight)
    weight = model.layer4[1].conv2.weight
    assert weight.abs().max().item() == pytest.approx(1 / sqrt(512 * 9), rel=1e-3)


def test_vgg_is_initialised_with_variance_two_over_fan_in():
    model = suite("vgg19")
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            spread = sqrt(2 / (9 * module.in_channels))
            assert module.weight.std().item() == pytest.approx(spread, rel=0.06)
            assert module.weight.abs().max().item() > 2.5 * spread  # normal, not uniform
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and (module.bias == 0).all()
    assert model.classifier.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert (model.classifier.bias == 0).all()


@pytest.mark.parametrize("name", ["resnet18", "vgg19"])
@pytest.mark.parametrize("shape", [(3, 16, 16), (3, 8, 8), (1, 28, 28), (3, 1, 1), (3, 40, 56)])
def test_other_input_sizes_work(name, shape):
    model = suite(name, classes=7, width=8, shape=shape)
    logits = model(torch.randn(3, *shape))
    assert logits.shape == (3, 7)
    logits.square().sum().backward()
    assert all(
        parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters()
    )


@pytest.mark.parametrize("name", ["resnet18", "vgg19"])
def test_width_scales_every_layer(name):
    wide, narrow = (dict(suite(name, width=width).named_parameters()) for width in (16, 4))
    for key, parameter in narrow.items():
        expected = [size if size in (1, 3, 10) else 4 * size for size in parameter.shape]
        assert list(wide[key].shape) == expected


@pytest.mark.parametrize("name", ["resnet18", "vgg19"])
def test_the_seed_decides_the_weights(name):
    first, again = suite(name, width=8), suite(name, width=8)
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True)
    )
    assert first.training
    assert all(
        int(module.num_batches_tracked) == 0
        for module in first.modules()
        if isinstance(module, nn.BatchNorm2d)
    )
