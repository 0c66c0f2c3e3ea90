"""What a forward pass tells about real networks: order, shapes, shortcuts, norms; and that it leaves no trace of its own."""

import pytest
import timm
import torch
from torch import nn

from cuttlefish.config.schema import ModelConfig
from cuttlefish.lowrank.trace import trace
from cuttlefish.models import build_model


def names(layers):
    return [layer.name for layer in layers]


def test_resnet18_order_shapes_and_shortcuts():
    model = build_model(ModelConfig(width=8), 10, (3, 32, 32))
    layers = trace(model, torch.randn(4, 3, 32, 32))
    main = [layer for layer in layers if not layer.shortcut]
    assert len(main) == 18 and main[0].name == "conv1" and main[-1].name == "fc"
    assert {layer.name.split(".")[0] for layer in layers if layer.shortcut} == {"layer2", "layer3", "layer4"}
    assert [layer.output_shape[-1] for layer in main[:-1]] == [32] * 5 + [16] * 4 + [8] * 4 + [4] * 4
    assert all(layer.normalised for layer in layers[:-1]) and not main[-1].normalised


@pytest.mark.parametrize(
    ("name", "shortcuts"),
    [
        (
            "resnet26",
            [
                "layer1.0.downsample.0",
                "layer2.0.downsample.0",
                "layer3.0.downsample.0",
                "layer4.0.downsample.0",
            ],
        ),
        ("resnetv2_50", ["stages.0.blocks.0.downsample.conv", "stages.1.blocks.0.downsample.conv"]),
    ],
)
def test_projection_shortcuts_of_bottlenecks(name, shortcuts):
    model = timm.create_model(name, num_classes=10)
    found = [layer.name for layer in trace(model, torch.randn(1, 3, 64, 64)) if layer.shortcut]
    assert found[: len(shortcuts)] == shortcuts and all("downsample" in layer for layer in found)


def test_linear_layers_of_a_transformer():
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10, depth=2, img_size=32)
    assert names(trace(model, torch.randn(2, 3, 32, 32))) == [
        "patch_embed.proj", "blocks.0.attn.qkv", "blocks.0.attn.proj", "blocks.0.mlp.fc1", "blocks.0.mlp.fc2",
        "blocks.1.attn.qkv", "blocks.1.attn.proj", "blocks.1.mlp.fc1", "blocks.1.mlp.fc2", "head",
    ]  # fmt: skip


def test_a_shared_module_counts_once_and_an_unused_one_not_at_all():
    shared = nn.Linear(8, 8)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    model.unused = nn.Linear(3, 3)
    model.forward = lambda x: shared(torch.relu(shared(x)))
    assert names(trace(model, torch.randn(2, 8))) == ["0"]


def test_model_is_left_as_it_was():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(4 * 36, 2)
    )
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    trace(model, torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert (
        model.training
        and not model[1].training
        and not any(module._forward_hooks for module in model.modules())
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
