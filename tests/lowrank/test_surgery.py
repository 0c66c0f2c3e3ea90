"""Factorizing whole models: the same function at full rank, nothing lost, nothing half done."""

import copy
import logging
import weakref

import pytest
import timm
import torch
from torch import distributed, nn

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank import surgery
from cuttlefish.lowrank.layers import LowRankConv2d, LowRankLayer, LowRankLinear
from cuttlefish.lowrank.matrix import unroll
from cuttlefish.lowrank.surgery import (
    break_even,
    densify,
    factorize,
    find_layers,
    low_rank_layers,
    replace_module,
)

SCHEMES = ["channel", "spatial"]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.strided = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.strided(x + self.block(x)).mean((2, 3)))


def full_ranks(model, scheme="channel"):
    return {
        name: min(unroll(layer.weight, scheme).shape) for name, layer in find_layers(model).layers.items()
    }


def parameter_count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "arguments",
    [
        ("resnet10t", {}),
        ("resnet14t", {}),
        ("vit_tiny_patch16_224", {"depth": 2, "img_size": 32, "patch_size": 8}),
    ],
)
def test_timm_models_compute_the_same_at_full_rank(arguments, scheme):
    name, options = arguments
    model = timm.create_model(name, pretrained=False, num_classes=7, **options).double().eval()
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    ranks = {name: rank for name, rank in full_ranks(model, scheme).items() if rank <= 192}
    with torch.no_grad():
        expected = model(x)
        assert factorize(model, ranks, scheme=scheme, keep_dense=False) is model
        assert len(low_rank_layers(model)) == len(ranks) > 5
        torch.testing.assert_close(model(x), expected, rtol=1e-10, atol=1e-10)


def test_every_parameter_is_in_the_model_once_and_trained():
    model = factorize(Residual(), {"block.0": 2, "strided": 3, "head": 2}, keep_dense=False)
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    assert len(names) == len(set(model.parameters())) == len(dict(model.named_parameters()))
    model(torch.randn(2, 3, 8, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_other_modules_and_bn_statistics_are_untouched():
    model = Residual()
    model(torch.randn(4, 3, 8, 8))
    before, objects = copy.deepcopy(model.state_dict()), (model.stem[0], model.stem[1], model.block[1])
    factorize(model, {"block.0": 2, "strided": 3}, keep_dense=False)
    assert objects == (model.stem[0], model.stem[1], model.block[1])
    kept = {key: value for key, value in before.items() if not key.startswith(("block.0", "strided"))}
    assert len(kept) == 1 + 5 + 5 + 2 and all(
        torch.equal(model.state_dict()[key], value) for key, value in kept.items()
    )
    assert torch.equal(model.state_dict()["strided.second.bias"], before["strided.bias"])


@pytest.mark.parametrize("extra_bn", [True, False])
def test_the_parameter_count_is_the_formula(extra_bn):
    model = Residual()
    dense = parameter_count(model)
    factorize(model, {"block.0": 2, "strided": 3, "head": 2}, keep_dense=False, extra_bn=extra_bn)
    change = (2 * (72 + 8) - 8 * 72) + (3 * (72 + 12) - 12 * 72) + (2 * (12 + 5) - 12 * 5)
    assert parameter_count(model) == dense + change + (2 * (2 + 3) if extra_bn else 0)


@pytest.mark.parametrize("extra_bn", [True, False])
def test_an_extra_bn_is_given_to_convolutions_only(extra_bn):
    model = factorize(Residual(), {"strided": 3, "head": 2}, extra_bn=extra_bn, keep_dense=False)
    assert isinstance(model.strided, LowRankConv2d) and isinstance(model.head, LowRankLinear)
    assert (model.strided.bn is not None) == extra_bn and model.head.bn is None


def test_a_shared_module_is_replaced_in_every_parent():
    shared = nn.Linear(6, 6, dtype=torch.float64)
    model = nn.Sequential(nn.Sequential(shared), nn.ReLU(), shared)
    x = torch.randn(3, 6, dtype=torch.float64)
    expected = model(x)
    factorize(model, {"0.0": 6}, keep_dense=False)
    assert model[2] is model[0][0] and isinstance(model[2], LowRankLinear)
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-10)
    assert len(low_rank_layers(model)) == 1
    densify(model)
    assert model[2] is model[0][0] and type(model[2]) is nn.Linear


def test_densify_undoes_factorize_at_full_rank():
    model = Residual().double()
    before = copy.deepcopy(model)
    factorize(model, full_ranks(model), keep_dense=False)
    assert densify(model) is model
    assert repr(model) == repr(before)
    torch.testing.assert_close(model.state_dict(), before.state_dict(), rtol=0, atol=1e-12)


def test_densify_folds_extra_bns_as_eval_mode_sees_them():
    model = factorize(Residual().double(), {"block.0": 4, "strided": 3}, extra_bn=True, keep_dense=False)
    for _ in range(3):
        model(2 + 3 * torch.randn(4, 3, 8, 8, dtype=torch.float64))
    model.eval()
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    expected = model(x)
    densify(model)
    assert not low_rank_layers(model)
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-10)


def test_keep_dense_leaves_layers_at_break_even_and_logs_them(caplog):
    """block.0 is an 8×72 matrix (break-even 7.2), strided 12×72 (10.3)."""
    model = Residual()
    with caplog.at_level(logging.INFO, logger="cuttlefish"):
        factorize(model, {"block.0": 8, "strided": 4})
    assert type(model.block[0]) is nn.Conv2d and isinstance(model.strided, LowRankConv2d)
    assert [record.getMessage() for record in caplog.records] == [
        "block.0 stays dense: rank 8 saves nothing (break-even 7.2)"
    ]
    factorize(model, {"block.0": 8}, keep_dense=False)
    assert isinstance(model.block[0], LowRankConv2d)


def test_a_rank_of_exactly_break_even_stays_dense():
    model = nn.Sequential(nn.Linear(6, 6))
    assert break_even(model[0]) == 3
    assert type(factorize(model, {"0": 3})[0]) is nn.Linear
    assert isinstance(factorize(model, {"0": 2})[0], LowRankLinear)


@pytest.mark.parametrize(
    ("scheme", "rank"), [("channel", 9 * 64 * 128 / (9 * 64 + 128)), ("spatial", 384 * 192 / 576)]
)
def test_break_even_is_where_factors_hold_as_much_as_the_kernel(scheme, rank):
    conv = nn.Conv2d(64, 128, 3, bias=False, device="meta")
    assert break_even(conv, scheme) == pytest.approx(rank)
    for around, smaller in ((int(rank), True), (int(rank) + 1, False)):
        model = factorize(
            nn.Sequential(conv), {"0": around}, scheme=scheme, keep_dense=False, initialise=False
        )
        assert (parameter_count(model) <= conv.weight.numel()) == smaller


def test_break_even_of_the_audited_resnet_layers():
    shapes = [(64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    values = [round(break_even(nn.Conv2d(*shape, 3, device="meta")), 1) for shape in shapes]
    assert values == [104.7, 115.2, 209.5, 230.4, 418.9, 460.8]


def test_without_initialisation_a_trained_state_loads():
    trained = factorize(Residual(), {"block.0": 2, "head": 3}, extra_bn=True, keep_dense=False)
    rebuilt = factorize(
        Residual(), {"block.0": 2, "head": 3}, extra_bn=True, keep_dense=False, initialise=False
    )
    assert not rebuilt.block[0].first.weight.any()
    rebuilt.load_state_dict(trained.state_dict())
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(rebuilt(x), trained(x))


def test_no_second_dense_copy_lives(monkeypatch):
    """When a layer is split, those before it are gone already."""
    model = nn.Sequential(*[nn.Linear(6, 6) for _ in range(4)])
    dense, alive = [weakref.ref(layer) for layer in model], []
    split = surgery.split_layer

    def counting(*arguments, **options):
        alive.append(sum(layer() is not None for layer in dense))
        return split(*arguments, **options)

    monkeypatch.setattr(surgery, "split_layer", counting)
    factorize(model, {str(i): 2 for i in range(4)})
    assert alive == [4, 3, 2, 1]


def test_a_model_can_be_factorized_in_parts():
    model = factorize(Residual(), {"strided": 3}, extra_bn=True)
    factorize(model, {"block.0": 2})
    assert {name: (layer.rank, layer.bn is not None) for name, layer in low_rank_layers(model).items()} == {
        "block.0": (2, False),
        "strided": (3, True),
    }


def test_training_goes_on_after_surgery():
    model = factorize(Residual(), {"block.0": 3, "strided": 4})
    y = torch.arange(24) % 3
    x = torch.randn(24, 3, 8, 8) + 2 * nn.functional.one_hot(y)[:, :, None, None]
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_a_model_compiled_in_place_follows_the_surgery():
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
    model.compile(backend="eager")
    x = torch.randn(2, 6)
    model(x)
    factorize(model, {"0": 1})
    assert torch.equal(model(x), model[0](x).relu())


BAD_CALLS = [
    ({"strided": 3, "block.1": 2}, {}, "Module 'block.1' is a BatchNorm2d; only nn.Conv2d and nn.Linear"),
    ({"strided": 3, "blok.0": 2}, {}, "The model has no layer 'blok.0'; the nearest names are block.0"),
    ({"strided": 3, "head": 6}, {}, "Layer 'head' was given rank 6; it must be a whole number from 1 to 5"),
    ({"strided": 3, "head": 0}, {}, "rank 0; it must be a whole number from 1 to 5"),
    ({"strided": 3, "head": 2.5}, {}, "rank 2.5; it must be a whole number"),
    ({"strided": 25}, {"scheme": "spatial"}, "from 1 to 24 \\(spatial scheme\\)"),
    ({"strided": 3}, {"scheme": "spatial", "extra_bn": True}, "exists only in the channel scheme"),
    ({"strided": 3}, {"scheme": "tucker"}, "must be one of channel, spatial"),
    ({"strided": 3, "low": 2}, {}, "Layer 'low' cannot be factorized: it is low-rank already \\(rank 3\\)"),
    ({"strided": 3, "low.first": 2}, {}, "it is a factor of the low-rank layer 'low'"),
    ({"strided": 3, "grouped": 2}, {}, "it is a grouped convolution"),
    (
        {"strided": 3, "alias": 2},
        {},
        "Layer 'alias' is the shared module 'head'; give its rank under that name",
    ),
    ({"strided": 3, "broken": 2}, {}, "weight of layer 'broken' holds NaN or infinite values"),
]


@pytest.mark.parametrize(("ranks", "options", "message"), BAD_CALLS)
def test_bad_input_is_refused_before_anything_changes(ranks, options, message):
    model = Residual()
    model.low, model.grouped, model.broken = (
        LowRankLinear(4, 4, 3),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Linear(4, 4),
    )
    model.alias = model.head
    nn.init.constant_(model.broken.weight, float("nan"))
    before = list(model.modules())
    with pytest.raises(CuttlefishError, match=message) as caught:
        factorize(model, ranks, **options)
    assert list(model.modules()) == before
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


@pytest.fixture
def process_group():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("change", [densify, lambda model: factorize(model, {"0": 1})])
@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (
            nn.parallel.DistributedDataParallel,
            "The model is wrapped in DistributedDataParallel .* change the wrapped model's .module",
        ),
        (nn.DataParallel, "wrapped in DataParallel"),
        (torch.compile, "wrapped in OptimizedModule .* given to torch.compile and compile that again"),
        (lambda model: nn.Sequential(torch.compile(model)), "Its part '0' is wrapped in OptimizedModule"),
        (
            lambda model: torch.jit.trace(model, torch.zeros(1, 4)),
            "wrapped in ScriptModule .* script that again",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning")
def test_wrapped_models_are_refused(process_group, change, wrap, message):
    with pytest.raises(CuttlefishError, match=message):
        change(wrap(nn.Sequential(nn.Linear(4, 4))))


def test_replace_module_names_what_is_wrong():
    model = Residual()
    with pytest.raises(CuttlefishError, match="cannot be replaced in place; put it into an nn.Sequential"):
        replace_module(model, "", nn.Identity())
    with pytest.raises(CuttlefishError, match="no module 'strided2'; the nearest names are strided"):
        replace_module(model, "strided2", nn.Identity())
    with pytest.raises(CuttlefishError, match="it is the model itself"):
        factorize(nn.Linear(4, 4), {"": 2})


def test_replace_module_accepts_any_name_of_a_shared_module():
    shared = nn.Linear(3, 3)
    model = nn.ModuleDict({"a": shared, "b": nn.ModuleList([shared])})
    replace_module(model, "b.0", nn.Identity())
    assert type(model["a"]) is nn.Identity and model["a"] is model["b"][0]


def test_a_model_without_low_rank_layers_is_left_as_it_is():
    model = Residual()
    before = list(model.modules())
    assert densify(factorize(model, {})) is model
    assert list(model.modules()) == before and not any(isinstance(m, LowRankLayer) for m in before)
