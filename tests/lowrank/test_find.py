"""Which layers are found, and the reason given for each that is not."""

import pytest
import timm
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from cuttlefish.lowrank.find import find_layers, low_rank_layers, nearest
from cuttlefish.lowrank.layers import LowRankConv2d, LowRankLinear


class Scaled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Conv1D(nn.Module):
    """Named and shaped as the one in transformers.pytorch_utils."""

    def __init__(self, outputs, inputs):
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.zeros(inputs, outputs)),
            nn.Parameter(torch.zeros(outputs)),
        )


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight


def test_finds_plain_layers_by_dotted_name_in_order():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)), nn.Linear(4, 2)
    )
    found = find_layers(model)
    assert list(found.layers) == ["0", "2.0", "3"]
    assert found.layers["2.0"] is model[2][0]
    assert found.refused == {}


def test_a_shared_module_is_found_once_under_its_first_name():
    shared = nn.Linear(4, 4)
    model = nn.ModuleDict({"a": nn.Sequential(shared), "b": shared})
    assert list(find_layers(model).layers) == ["a.0"]


def reason(module):
    found = find_layers(nn.ModuleDict({"layer": module, "plain": nn.Linear(2, 2)}))
    assert list(found.layers) == ["plain"]
    return found.refused["layer"]


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: nn.Conv2d(4, 8, 3, groups=2), "grouped convolution (groups=2)"),
        (lambda: nn.Conv2d(4, 8, 3, groups=4), "depthwise convolution (groups=4)"),
        (lambda: Scaled(4, 4), "is a Scaled with behaviour of its own"),
        (lambda: nn.LazyLinear(4), "lazy module without a shape yet"),
        (lambda: nn.LazyConv2d(4, 3), "lazy module without a shape yet"),
        (lambda: parametrizations.weight_norm(nn.Linear(4, 4)), "computed from other tensors"),
        (lambda: parametrizations.spectral_norm(nn.Conv2d(4, 4, 3)), "computed from other tensors"),
        (lambda: prune.l1_unstructured(nn.Linear(4, 4), "weight", amount=1), "computed from other tensors"),
        (lambda: nn.utils.weight_norm(nn.Linear(4, 4)), "computed from other tensors"),
        (lambda: nn.Linear(4, 4, dtype=torch.cfloat), "weight is complex"),
        (lambda: LowRankLinear(4, 4, 3), "low-rank already (rank 3)"),
        (lambda: nn.Conv1d(4, 4, 3), "it is a Conv1d; only nn.Conv2d and nn.Linear"),
        (lambda: nn.Conv3d(4, 4, 3), "it is a Conv3d; only"),
        (lambda: nn.ConvTranspose1d(4, 4, 3), "a transposed convolution (ConvTranspose1d)"),
        (lambda: nn.ConvTranspose2d(4, 4, 3), "a transposed convolution (ConvTranspose2d)"),
        (lambda: nn.ConvTranspose3d(4, 4, 3), "a transposed convolution (ConvTranspose3d)"),
        (lambda: nn.LSTM(4, 4), "it is a LSTM"),
        (lambda: nn.GRUCell(4, 4), "it is a GRUCell"),
        (lambda: nn.Bilinear(4, 4, 4), "it is a Bilinear"),
        (lambda: Conv1D(4, 4), "a Conv1D of transformers, whose weight is stored as in × out"),
    ],
)
def test_refuses_with_a_reason(build, words):
    assert words in reason(build())


def test_refuses_a_layer_whose_forward_was_replaced():
    layer = nn.Linear(4, 4)
    layer.forward = lambda x: x
    assert "behaviour of its own" in reason(layer)


def test_refuses_what_torch_s_transformers_read_instead_of_call():
    model = nn.ModuleDict(
        {"enc": nn.TransformerEncoderLayer(8, 2, 16), "dec": nn.TransformerDecoderLayer(8, 2, 16)}
    )
    found = find_layers(model)
    assert found.layers == {}
    assert set(found.refused) == {
        *("enc.self_attn.out_proj", "enc.linear1", "enc.linear2"),
        *("dec.self_attn.out_proj", "dec.multihead_attn.out_proj", "dec.linear1", "dec.linear2"),
    }
    assert "instead of calling it" in found.refused["enc.self_attn.out_proj"]
    assert "fast path" in found.refused["enc.linear1"]


def test_refuses_tied_weights_naming_the_other_owner():
    found = find_layers(Tied())
    assert list(found.layers) == ["body"]
    assert "embed.weight and head.weight are one parameter" in found.refused["head"]


def test_refuses_a_parameter_that_the_model_also_holds_directly():
    model = nn.Sequential(nn.Linear(3, 3))
    model.alias = model[0].weight
    assert "alias and 0.weight" in find_layers(model).refused["0"]


def test_a_low_rank_layer_and_its_factors_are_refused():
    model = nn.Sequential(LowRankConv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 3))
    found = find_layers(model)
    assert list(found.layers) == ["1"]
    assert list(found.refused) == ["0", "0.first", "0.second"]
    assert "factor of the low-rank layer '0'" in found.refused["0.first"]
    assert low_rank_layers(model) == {"0": model[0]}


@pytest.mark.parametrize(
    ("hold", "kind"),
    [
        (lambda layer: [layer], "list"),
        (lambda layer: (nn.ReLU(), layer), "tuple"),
        (lambda layer: {"a": [layer]}, "dict"),
        (lambda layer: {layer}, "set"),
        (lambda layer: layer.forward, "method"),
    ],
)
def test_refuses_what_a_plain_container_holds_too(hold, kind):
    """The registered one would be replaced, and the plain one would go on being called."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3)), nn.ModuleList([nn.Linear(3, 3)]))
    model[1].plain = hold(model[0])
    found = find_layers(model)
    assert list(found.layers) == ["1.0", "2.0"]
    assert found.refused["0"].startswith(f"1.plain holds it, too, as a plain {kind}")


def test_a_block_in_a_plain_list_keeps_its_layers():
    model = nn.Sequential(nn.Sequential(nn.Linear(3, 3)), nn.Linear(3, 3))
    model.blocks = [model[0]]
    assert list(find_layers(model).layers) == ["0.0", "1"], (
        "the block stays, its layers are replaced inside it"
    )


def test_the_model_itself_is_refused():
    assert "put it into an nn.Sequential" in find_layers(nn.Linear(3, 3)).refused[""]


def test_a_lazy_layer_is_found_after_its_first_batch():
    model = nn.Sequential(nn.LazyLinear(4))
    model(torch.zeros(2, 3))
    assert list(find_layers(model).layers) == ["0"]


@pytest.mark.parametrize(
    ("name", "layers", "refused"), [("resnet18", 21, 0), ("resnet50", 54, 0), ("resnext50_32x4d", 38, 16)]
)
def test_counts_in_timm_convolutional_networks(name, layers, refused):
    with torch.device("meta"):
        found = find_layers(timm.create_model(name, pretrained=False))
    assert (len(found.layers), len(found.refused)) == (layers, refused)


def test_counts_in_a_timm_transformer():
    """Patch embedding, four a block (qkv, proj, fc1, fc2) and the head."""
    with torch.device("meta"):
        found = find_layers(timm.create_model("vit_tiny_patch16_224", pretrained=False))
    assert len(found.layers) == 1 + 12 * 4 + 1 and not found.refused


def test_nearest_names():
    assert nearest("conv9", ["conv1", "conv2", "fc"]) == "; the nearest names are conv2, conv1"
    assert nearest("zzz", ["conv1"]) == ""
