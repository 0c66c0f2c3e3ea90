"""The networks of Tables 2 and 3 by their config files: audited sizes, and what each preset factorizes."""

import math

import pytest
import torch
from torch import nn

from cuttlefish.auto import Cuttlefish
from cuttlefish.config.compose import compose_config
from cuttlefish.config.validate import build_settings
from cuttlefish.lowrank.find import find_layers, low_rank_layers
from cuttlefish.lowrank.rank import RankTracker
from cuttlefish.lowrank.rank.misaligned import misaligned_ranks
from cuttlefish.methods.cuttlefish.method import Settings
from cuttlefish.models import build_model
from tests.helpers.runs import CONF

FULL = {
    "resnet50": 25_557_032,
    "wide_resnet50_2": 68_883_240,
    "deit_base": 86_567_656,
    "resmlp_s36": 44_690_488,
}
IMAGES = torch.zeros(1, 3, 224, 224, device="meta")


def composed(name: str, *words: str):
    """The network without memory, and Cuttlefish's settings for it."""
    config = compose_config(CONF, [f"model={name}", "method=cuttlefish", "method.k=paper", *words])
    with torch.device("meta"):
        model = build_model(config.model, 1000, (3, 224, 224))
    return model, build_settings(Settings, config.method)


def core(model, settings, **state):
    """Cuttlefish on a model without memory: ranks are given, as on resume."""
    history = dict.fromkeys(find_layers(model).layers, [100.0])
    return Cuttlefish(model, IMAGES, epochs=90, settings=settings, state={"history": history, **state})


def at_floors(name: str, *words: str):
    """The network with the rank of every factorized layer at its floor, and these ranks."""
    model, settings = composed(name, "preset=reference", *words)
    before = core(model, settings)
    tracker = RankTracker(model, before.tracker.history)
    tracker.history = {layer: [100.0, 1.0] for layer in tracker.history}
    if settings.misaligned:
        beside = before.shortcuts
        ranks = misaligned_ranks(tracker, before.layers, beside, rank_floor=settings.rank_floor)
    else:
        ranks = tracker.scaled_ranks(floored=True, rank_floor=settings.rank_floor)
        ranks = {layer: ranks[layer] for layer in before.layers}
    core(model, settings, switch_epoch=6, ranks=ranks, factorized=list(ranks))
    assert low_rank_layers(model).keys() == ranks.keys()
    return model, ranks


def size_of(model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", FULL)
def test_audited_sizes_at_full_rank(name):
    assert size_of(composed(name)[0]) == FULL[name]


def test_resnet50_begins_as_the_public_code_s():
    """Convolutions normal by fan-out, and every norm at one, the last of a block too."""
    config = compose_config(CONF, ["model=resnet50"])
    model = build_model(config.model, 1000, (3, 224, 224))
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and not module.bias.any(), name
        if isinstance(module, nn.Conv2d):
            spread = math.sqrt(2 / (module.out_channels * math.prod(module.kernel_size)))
            assert module.weight.std().item() == pytest.approx(spread, rel=0.05), name
    assert model.layer4[1].conv2.weight.abs().max() > 4 * math.sqrt(2 / (512 * 9)), "normal, not uniform"


@pytest.mark.parametrize(
    ("name", "words", "size"),
    [
        ("resnet50", ["method.misaligned=true", "method.extra_bn=false"], 14_218_280),
        ("resnet50", ["method.misaligned=true"], 14_220_320),
        ("wide_resnet50_2", ["method.misaligned=true", "method.extra_bn=false"], 37_385_000),
        ("wide_resnet50_2", ["method.misaligned=true"], 37_388_672),
        ("deit_base", [], 58_269_928),
        ("resmlp_s36", [], 28_779_064),
    ],
)
def test_audited_sizes_with_every_rank_on_its_floor(name, words, size):
    assert size_of(at_floors(name, *words)[0]) == size


def test_the_floors_of_resnet50_without_the_code_s_mistake():
    _, ranks = at_floors("resnet50")
    assert ranks == {layer: 204 if "downsample" in layer else 102 for layer in ranks} and len(ranks) == 10


@pytest.mark.parametrize(
    ("name", "dense", "tracked", "low"), [("deit_base", "attn.proj", 48, 36), ("resmlp_s36", "linear_tokens", 108, 72)]
)  # fmt: skip
def test_the_public_code_waits_for_layers_that_it_leaves_dense(name, dense, tracked, low):
    model, settings = composed(name, "preset=reference")
    found = core(model, settings)
    assert (len(found.tracker.history), len(found.layers)) == (tracked, low)
    assert len(found.test.history) == tracked
    assert {why for layer, why in found.kept_dense.items() if dense in layer} == {"dense names it"}
    assert not any(dense in layer for layer in found.layers)


@pytest.mark.parametrize(("name", "low"), [("deit_base", 48), ("deit_small", 48), ("resmlp_s36", 108)])
def test_by_the_text_all_of_every_block_is_factorized(name, low):
    assert len(core(*composed(name, "preset=paper")).layers) == low


def test_a_pattern_for_no_layer_is_refused():
    model, settings = composed("deit_base", "method.dense=['*.attn.porj']")
    with pytest.raises(Exception, match="dense names .* which is no layer of this model"):
        core(model, settings)


@pytest.mark.parametrize(
    ("name", "size", "layers"),
    [("reduced/deit", 2_693_578, 24), ("reduced/resmlp", 1_818_826, 18), ("reduced/resnet50", 1_492_874, 10)],
)
def test_the_reduced_networks_and_what_cuttlefish_factorizes_of_them(name, size, layers):
    config = compose_config(CONF, [f"model={name}", "method=cuttlefish", "method.k=paper"])
    with torch.device("meta"):
        model = build_model(config.model, 10, (3, 32, 32))
    assert size_of(model) == size
    settings, images = build_settings(Settings, config.method), torch.zeros(1, 3, 32, 32, device="meta")
    history = dict.fromkeys(find_layers(model).layers, [100.0])
    assert (
        len(Cuttlefish(model, images, epochs=30, settings=settings, state={"history": history}).layers)
        == layers
    )
