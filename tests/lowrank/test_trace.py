"""What a forward pass tells: order, shapes, shortcuts, norms, heads; and that it leaves no trace."""

import pytest
import timm
import torch
from torch import nn

from cuttlefish.config.schema import ModelConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.path import candidates, main_path
from cuttlefish.lowrank.profiling import profile_stacks
from cuttlefish.lowrank.trace import first_samples, trace
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


def test_a_shared_module_counts_once_and_an_unused_one_never():
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


def heads(model, example):
    return [layer.name for layer in trace(model, example) if layer.head]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("deit_tiny_distilled_patch16_224", ["head", "head_dist"]),
        ("levit_128", ["head.linear", "head_dist.linear"]),
        ("vit_tiny_patch16_224", ["head"]),
        ("resnet26", ["fc"]),
        ("densenet121", ["classifier"]),
    ],
)
def test_heads_are_what_feeds_an_output(name, expected):
    model = timm.create_model(name, num_classes=3)
    images = torch.randn(1, 3, 224, 224)
    assert heads(model, images) == expected
    assert not set(expected) & set(candidates(model, main_path(model, images)))


class Branches(nn.Module):
    """Two outputs, in-place operations, a branch into a buffer, a layer called twice, one called in vain."""

    def __init__(self):
        super().__init__()
        self.stem, self.twice, self.left, self.right, self.gate, self.unused = (
            nn.Linear(4, 4) for _ in range(6)
        )

    def forward(self, x):
        x = self.twice(self.twice(self.stem(x).relu_()))
        room = torch.empty_like(x)
        room[:, :2] = self.gate(x)[:, :2].detach()
        room[:, 2:] = 0
        outputs = {"left": self.left(x * room), "right": [self.right(x.view(-1, 4).t().contiguous().t())]}
        self.unused(x)
        return outputs


def test_heads_of_a_network_of_branches():
    assert heads(Branches(), torch.randn(3, 4)) == ["left", "right", "unused"]


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.image, self.text, self.body, self.head = (nn.Linear(6, 6) for _ in range(4))

    def forward(self, image, text, scale=1):
        return self.head(self.body(self.image(image) + scale * self.text(text)))


@pytest.mark.parametrize(
    ("batch", "forward"),
    [
        ((torch.randn(5, 6), torch.randn(5, 6)), None),
        ([torch.randn(5, 6), torch.randn(5, 6), 2], None),
        ({"text": torch.randn(5, 6), "image": torch.randn(5, 6), "scale": torch.tensor(2.0)}, None),
        ({"both": torch.randn(5, 12)}, lambda model, batch: model(*batch["both"].chunk(2, dim=1))),
    ],
)
def test_batches_of_every_kind(batch, forward):
    layers = trace(Two(), batch, forward)
    assert names(layers) == ["image", "text", "body", "head"]
    assert all(layer.input_shape == (2, 6) for layer in layers)
    profile = profile_stacks(Two(), batch, repeats=2, cost_model=True, forward=forward)
    assert profile.batch[0] == 5 and [layer for stack in profile.stacks for layer in stack.layers] == [
        "text",
        "body",
    ]


def test_a_batch_is_cut_where_it_has_samples():
    batch = {
        "x": torch.zeros(7, 3),
        "pair": (torch.zeros(7), "words"),
        "table": torch.zeros(3, 7),
        "flag": True,
    }
    cut = first_samples(batch, 2)
    assert cut["x"].shape == (2, 3) and cut["pair"][0].shape == (2,) and cut["pair"][1] == "words"
    assert cut["table"].shape == (3, 7) and cut["flag"] is True and batch["x"].shape == (7, 3)
    with pytest.raises(CuttlefishError, match="a dict without a tensor"):
        first_samples({"ids": [1, 2]}, 2)


def test_a_model_compiled_in_place_is_traced_as_it_is_written():
    model = Branches()
    model.compile(backend="eager")
    assert names(trace(model, torch.randn(3, 4))) == ["stem", "twice", "gate", "left", "right", "unused"]


def test_a_function_compiled_inside_a_model_hides_nothing():
    layers = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return lambda *inputs: tuple(output.detach().clone() for output in graph(*inputs))

    between = torch.compile(lambda x: x.relu() * 2, backend=backend)
    layers.forward = lambda x: layers[2](between(layers[1](between(layers[0](x)))))
    assert heads(layers, torch.randn(3, 4)) == ["2"] and not graphs


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_a_wrapped_model_is_refused_before_anything_runs(wrap):
    with pytest.raises(CuttlefishError, match="cannot be changed in place"):
        main_path(wrap(Two()), (torch.randn(5, 6), torch.randn(5, 6)))


def test_a_model_without_the_right_layers_says_which_it_has():
    model = nn.Sequential(nn.Conv1d(3, 3, 3), nn.Flatten(), nn.Linear(12, 2))
    with pytest.raises(CuttlefishError, match="no layer to factorize .*0: it is a Conv1d"):
        main_path(model, torch.randn(2, 3, 6))


def test_a_batch_that_does_not_fit_is_told_and_nothing_is_changed():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    with pytest.raises(CuttlefishError, match="does not run on the batch .RuntimeError: .*: give its inputs"):
        trace(model, torch.randn(2, 5))
    with pytest.raises(CuttlefishError, match="does not run on the batch .TypeError: .*: make forward= fit"):
        trace(model, torch.randn(2, 3), lambda model, batch: model(batch, 1))
    assert model.training and not model[0]._forward_hooks
