"""Pufferfish: which layers, which ranks, when; and the parameter counts of the reference's networks."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from baselines.pufferfish.method import Pufferfish, Settings, fixed_ranks, scaled_epoch, size_with
from cuttlefish.config.schema import ModelConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.layers import LowRankConv2d
from cuttlefish.lowrank.settings import Settings as CuttlefishSettings
from cuttlefish.lowrank.surgery import factorize, low_rank_layers
from cuttlefish.methods.cuttlefish.method import CuttlefishMethod
from cuttlefish.models import build_model
from cuttlefish.models.resnet_cifar import ResNet
from cuttlefish.record.folder import read_ranks
from cuttlefish.worker import run_config
from tests.helpers.runs import composed_settings, little_config


def settings(model: str, preset: str = "reference", **knobs) -> Settings:
    words = [f"method.{key}={value}" for key, value in knobs.items()]
    return composed_settings("pufferfish", f"preset={preset}", f"model={model}", *words)


def suite(name: str, classes: int = 10, width: int = 64):
    return build_model(ModelConfig(name, width=width), classes, (3, 32, 32)).to("meta")


def hybrid(name: str, model, preset: str = "reference", size: int = 32, **knobs):
    """The network behind the switch and its ranks, without memory."""
    chosen, example = settings(name, preset, **knobs), torch.zeros(1, 3, size, size, device="meta")
    ranks = fixed_ranks(
        model, example, chosen.k, chosen.rank_ratio, dense=chosen.dense, shortcuts=chosen.factorize_shortcuts
    )
    options = {"extra_bn": chosen.extra_bn, "first_bias": chosen.first_bias, "keep_dense": chosen.keep_dense}
    return factorize(model, ranks, **options, initialise=False), ranks


def run(folder: Path, name: str = "pufferfish", **knobs):
    return run_config(replace(little_config(folder), method={"name": name, **knobs}))


def size_of(model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "knobs", "classes", "params"),
    [
        ("resnet18", {}, 10, 3_338_122),
        ("resnet18", {}, 100, 3_384_292),
        ("resnet18", {"extra_bn": False}, 10, 3_336_266),
        ("resnet18", {"extra_bn": False}, 100, 3_382_436),
        ("vgg19", {}, 10, 8_107_466),
        ("vgg19", {}, 100, 8_153_636),
        ("vgg19", {"extra_bn": True}, 10, 8_109_258),
        ("vgg19", {"extra_bn": True}, 100, 8_155_428),
        ("vgg19", {"k": 4}, 10, 5_805_514),
        ("vgg19", {"k": 4}, 100, 5_851_684),
    ],
)
def test_sizes_of_the_reference_s_cifar_networks(name, knobs, classes, params):
    model, _ = hybrid(name, suite(name, classes), **knobs)
    assert size_of(model) == params


def test_clean_preset_has_the_extra_norms_of_the_paper_s_text():
    assert size_of(hybrid("vgg19", suite("vgg19"), "default")[0]) == 8_109_258
    assert settings("vgg19", "default").keep_dense and not settings("vgg19", "default").overshoot


@pytest.mark.parametrize(
    ("name", "params", "with_bn"),
    [("resnet50", 15_202_344, 15_204_648), ("wide_resnet50_2", 40_047_400, None)],
)
def test_sizes_of_the_reference_s_imagenet_networks(name, params, with_bn):
    torchvision = pytest.importorskip("torchvision")

    def build():
        with torch.device("meta"):
            return torchvision.models.get_model(name)

    model, ranks = hybrid(name, build(), size=64)
    assert size_of(model) == params
    assert min(ranks) == "layer4.0.conv1" and len(ranks) == 10
    width = 512 if name == "resnet50" else 1024
    assert ranks["layer4.0.downsample.0"] == 1024 // 4 and ranks["layer4.2.conv3"] == width // 4
    if with_bn:
        # The reference has no norm in the downsample's factors; ours has it in every convolution's.
        extra = size_of(hybrid(name, build(), size=64, extra_bn=True)[0])
        assert extra - with_bn == 2 * ranks["layer4.0.downsample.0"]


@pytest.mark.parametrize(
    ("name", "library_name", "params", "first_biases"),
    [
        ("deit_base", "deit_base_patch16_224", 58_260_712, 6 * 4 * 192),
        ("resmlp_s36", "resmlp_36_224", 29_284_984, 19 * 2 * 96),
    ],
)
def test_sizes_of_the_reference_s_transformers(name, library_name, params, first_biases):
    timm = pytest.importorskip("timm")

    def build():
        with torch.device("meta"):
            return timm.create_model(library_name)

    assert size_of(hybrid(name, build(), size=224)[0]) == params
    assert size_of(hybrid(name, build(), "default", size=224)[0]) == params - first_biases


def test_layers_behind_k_get_a_quarter_of_their_rank():
    _, ranks = hybrid("resnet18", suite("resnet18"))
    assert (
        min(ranks) == "layer1.1.conv1" and len(ranks) == 14 and not any("shortcut" in name for name in ranks)
    )
    assert {name: rank for name, rank in ranks.items() if "conv2" in name and ".1." in name} == {
        "layer1.1.conv2": 16, "layer2.1.conv2": 32, "layer3.1.conv2": 64, "layer4.1.conv2": 128,
    }  # fmt: skip
    _, ranks = hybrid("vgg19", suite("vgg19"))
    assert list(ranks.values()) == [128] * 7


def test_a_tiny_ratio_leaves_rank_one_and_patterns_stay_dense():
    model, example = ResNet(4, width=8), torch.zeros(1, 3, 12, 12)
    assert set(fixed_ranks(model, example, 3, 0.01).values()) == {1}
    assert set(fixed_ranks(model, example, 3, 0.35).values()) == {2, 5, 11, 22}, (
        "of 8, 16, 32, 64, never rounded up"
    )
    assert set(fixed_ranks(model, example, 3, 0.25, dense=["layer[123].*"])) == {
        f"layer4.{i}.conv{j}" for i in (0, 1) for j in (1, 2)
    }


def test_shortcuts_do_not_count_towards_k():
    model, example = ResNet(4, width=8), torch.zeros(1, 3, 12, 12)
    without, beside = fixed_ranks(model, example, 9, 0.5), fixed_ranks(model, example, 9, 0.5, shortcuts=True)
    assert min(without) == min(beside) == "layer3.0.conv1"
    assert beside.keys() - without.keys() == {"layer3.0.shortcut.0", "layer4.0.shortcut.0"}


@pytest.mark.parametrize(("epochs", "E"), [(300, 80), (200, 53), (30, 8), (4, 1), (2, 1)])
def test_e_scales_with_the_run(epochs, E):
    assert scaled_epoch(settings("resnet18").switch_fraction, epochs) == E


def test_e_of_the_imagenet_runs_and_inside_the_run():
    assert scaled_epoch(settings("resnet50").switch_fraction, 90) == 10
    assert scaled_epoch(settings("wide_resnet50_2").switch_fraction, 90) == 6
    assert scaled_epoch(0.99, 10) == 9 and scaled_epoch(0.01, 10) == 1


def test_it_is_the_same_switch_with_other_numbers(tmp_path):
    assert (
        issubclass(Pufferfish, CuttlefishMethod)
        and Pufferfish.on_epoch_start is CuttlefishMethod.on_epoch_start
    )
    one = run(tmp_path / "one", k=3, switch_epoch=2)
    other = run(tmp_path / "other", "cuttlefish", k=3, switch_epoch=2, rank_ratio=0.25, extra_bn=True)
    for field in (
        "k",
        "switch_epoch",
        "switch_reason",
        "ranks",
        "params_total",
        "loss_final",
        "accuracy_final",
    ):
        assert getattr(one, field) == getattr(other, field), field
    assert (one.k, one.switch_epoch, one.switch_reason) == (3, 2, "fixed") and len(one.ranks) == 14


def test_the_default_e_falls_inside_a_short_run(tmp_path):
    record = run(tmp_path, k=3)
    assert record.switch_epoch == 1 and record.params_total < record.params_full


def test_forked_without_rank_history_it_still_switches_at_e(tmp_path):
    run(tmp_path / "source", "full_rank")
    source = tmp_path / "source" / "checkpoints" / "epoch_00003.pt"
    config = replace(
        little_config(tmp_path / "arm"),
        method={"name": "pufferfish", "k": 3, "switch_epoch": 3},
        fork_from=str(source),
    )
    record = run_config(config)
    assert record.switch_epoch == 3 and len(record.ranks) == 14


@pytest.mark.parametrize("track", [False, True])
def test_ranks_are_measured_only_when_asked_for(tmp_path, track):
    run(tmp_path, k=3, switch_epoch=2, track_ranks=track)
    rows = read_ranks(tmp_path)
    assert [len({row["layer"] for row in rows}), len({row["epoch"] for row in rows})] == (
        [14, 3] if track else [0, 0]
    )


def test_ranks_that_are_to_be_found_must_be_tracked():
    with pytest.raises(CuttlefishError, match="track_ranks=false needs switch_epoch and rank_ratio"):
        CuttlefishSettings(track_ranks=False, switch_epoch=3).check()


def test_the_switch_makes_low_rank_layers_with_norms():
    model, ranks = hybrid("resnet18", suite("resnet18", width=8))
    assert low_rank_layers(model).keys() == ranks.keys()
    assert all(
        isinstance(layer, LowRankConv2d) and layer.bn is not None for layer in low_rank_layers(model).values()
    )


@pytest.mark.parametrize(
    "knobs", [{}, {"extra_bn": False}, {"factorize_shortcuts": True, "shortcut_bn": False}]
)
def test_a_size_to_match_sets_the_ratio(tmp_path, knobs):
    target = 70_000
    record = run(tmp_path, k=3, switch_epoch=1, target_params=target, **knobs)
    assert record.target["params"] == target and record.target["achieved"] == record.params_total
    assert abs(record.params_total / target - 1) < 0.03  # ranks of 8 channels are coarse


def test_sizes_are_those_of_the_built_model():
    model = build_model(ModelConfig("resnet18", width=8), 10, (3, 32, 32))
    ranks = fixed_ranks(model, torch.zeros(1, 3, 32, 32), 1, 0.3, shortcuts=True)
    convs = {name for name in ranks if "conv" in name}
    expected = size_with(model, ranks, keep_dense=False, norms=convs)
    factorize(model, {name: ranks[name] for name in convs}, extra_bn=True, keep_dense=False)
    factorize(model, {name: ranks[name] for name in ranks.keys() - convs}, keep_dense=False)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_two_sizes_are_one_too_many(tmp_path):
    with pytest.raises(CuttlefishError, match="each sets the size"):
        run(tmp_path, k=3, target_params=1000, match="0123456789ab")


def test_a_size_out_of_reach_is_refused(tmp_path):
    with pytest.raises(CuttlefishError, match="pufferfish cannot reach 1,000 parameters"):
        run(tmp_path, k=3, target_params=1000)


def test_a_size_to_match_sets_k_at_a_given_ratio(tmp_path):
    """Sizes at ratio 1/4 fall step by step with K; a size between two of them gets the nearer one."""
    sizes = {k: run(tmp_path / str(k), k=k, switch_epoch=1).params_total for k in (3, 4, 5)}
    assert sizes[3] < sizes[4] < sizes[5]
    target = sizes[4] + (sizes[5] - sizes[4]) // 3
    record = run(tmp_path / "found", switch_epoch=1, target_params=target, sized_by="k")
    assert record.k == 4 and record.params_total == record.target["achieved"] == sizes[4]
    largest = run(tmp_path / "full", switch_epoch=1, target_params=record.params_full, sized_by="k")
    assert len(largest.ranks) == 1, "one layer at a quarter of its rank is the nearest to none"


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"target_params": 1000, "sized_by": "k"}, "pufferfish cannot reach 1,000 parameters"),
        ({}, "no K for resnet18: give method.k"),
        ({"k": 40}, "K = 40 leading dense layers is out of range"),
        ({"k": 17}, "leaves no layer"),
        ({"k": 3, "dense": ["*"]}, "leaves no layer"),
        ({"k": 3, "switch_epoch": 4}, "outside the run's 4 epochs"),
        ({"k": 3, "switch_fraction": 1.0}, r"switch_fraction must be in \(0, 1\), not 1.0"),
        ({"k": 3, "rank_ratio": 0.0}, "rank_ratio must be .* not 0.0"),
    ],
)
def test_bad_input_is_refused_before_training(tmp_path, knobs, message):
    with pytest.raises(CuttlefishError, match=message):
        run(tmp_path, **knobs)
    assert not (tmp_path / "checkpoints").exists()
