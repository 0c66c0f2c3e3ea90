"""Stacks, the rule for K and its bounds. Timed profiles are checked for form only, never for their K."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from cuttlefish.config.schema import ModelConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.layers import LowRankConv2d
from cuttlefish.lowrank.path import candidates, main_path
from cuttlefish.lowrank.profiling import block_name, profile_stacks, stacks, timing
from cuttlefish.models import build_model

IMAGES = torch.randn(2, 3, 32, 32)


@pytest.fixture(scope="module")
def resnet():
    return build_model(ModelConfig(width=8), 10, (3, 32, 32))


@pytest.fixture(scope="module")
def vgg():
    return build_model(ModelConfig(name="vgg19", width=8), 10, (3, 32, 32))


def fake_timings(monkeypatch, speedups):
    """Each stack's speed-up by output resolution, in place of a clock."""

    def measure(layer, *_):
        return 3.0, 3.0 / speedups[layer.output_shape[-1]], 6.0, 6.0, 3.0, 3.0

    monkeypatch.setattr(timing, "measure", measure)


def test_layers_behind_the_last_leading_failure(resnet, monkeypatch):
    fake_timings(monkeypatch, {32: 1.2, 16: 1.6, 8: 1.4, 4: 2.0})
    profile = profile_stacks(resnet, IMAGES)
    assert [stack.factorize for stack in profile.stacks] == [False, True, True, True]
    assert (profile.k, profile.first_factorized) == (5, 6)
    assert len(profile.layers) == 12 and profile.layers[0] == "layer2.0.conv1"
    assert profile.stacks[2].speedup == pytest.approx(1.4) and profile.stacks[1].backward_speedup == 1.0


def test_paper_k_of_vgg(vgg, monkeypatch):
    fake_timings(monkeypatch, {32: 1.0, 16: 1.3, 8: 1.7, 4: 1.7, 2: 1.7})
    profile = profile_stacks(vgg, IMAGES)
    assert profile.k == 4 and len(profile.layers) == 12


def test_threshold_is_strict_and_nothing_passing_declines(resnet, monkeypatch):
    fake_timings(monkeypatch, dict.fromkeys((32, 16, 8, 4), 1.5))
    profile = profile_stacks(resnet, IMAGES)
    assert profile.layers == [] and profile.k == 18
    assert profile_stacks(resnet, IMAGES, threshold=1.4).k == 1


def test_cost_model_is_deterministic_and_finds_the_papers_k():
    shapes = {"resnet18": 5, "vgg19": 4}
    for name, k in shapes.items():
        model = build_model(ModelConfig(name=name), 10, (3, 32, 32))
        batch = torch.zeros(1, 3, 32, 32).expand(1024, 3, 32, 32)
        first, second = (profile_stacks(model, batch, cost_model=True) for _ in range(2))
        assert first.k == k and first.stacks == second.stacks and first.source == "cost model"


def test_arithmetic_intensity_of_the_paper():
    """Section 3.5, batch 1024, the equal-width convolutions of ResNet-18's four stacks."""
    model = build_model(ModelConfig(), 10, (3, 32, 32))
    path = {layer.name: layer for layer in main_path(model, IMAGES)}
    for stack, expected in enumerate([576, 1147, 2226, 3596], start=1):
        assert stacks._intensity([path[f"layer{stack}.1.conv1"]], 1024) == pytest.approx(expected, rel=0.01)


def test_of_eleven_runs_the_first_is_dropped(resnet, monkeypatch):
    """ζ = 11 runs of the layer at full rank and at α = 1/4 of it, in turns, each with its norm and activation."""
    layer = {layer.name: layer for layer in main_path(resnet, IMAGES)}["layer2.0.conv1"]
    seconds, units = [100, 1, 1, 1, 1, 2, 4, 9, 9, 9, 9], []

    def timed(unit, *_):
        units.append(unit)
        run = seconds[(len(units) - 1) // 2]
        return (run, 3 * run) if len(units) % 2 else (2 * run, 5 * run)

    monkeypatch.setattr(timing, "_time", timed)
    found = timing.measure(layer, timing.Conditions(IMAGES, 0.25, 11, True, False, nullcontext))
    assert found == (3, 6, 9, 15, 4.6, 9.2) and len(units) == 22
    for unit, kind in zip(units, [nn.Conv2d, LowRankConv2d] * 11, strict=True):
        assert [type(part) for part in unit[1:]] == [nn.BatchNorm2d, nn.ReLU] and isinstance(unit[0], kind)
    assert units[1][0].rank == 4 and units[1][0].stride == (2, 2)


def test_a_real_clock_fills_every_column(resnet):
    weights = {name: tensor.clone() for name, tensor in resnet.state_dict().items()}
    profile = profile_stacks(resnet, IMAGES.contiguous(memory_format=torch.channels_last), repeats=3)
    assert (
        all(stack.full_forward > 0 and stack.low_backward > 0 for stack in profile.stacks)
        and profile.source == "timed"
    )
    assert all(torch.equal(weights[name], tensor) for name, tensor in resnet.state_dict().items())
    text = str(profile)
    assert "32×32" in text and f"K = {profile.k}" in text and len(profile.to_dict()["stacks"]) == 4
    assert profile_stacks(resnet, IMAGES, repeats=2, backward=False).stacks[0].backward_speedup is None


def test_candidates_and_bounds(vgg):
    path = main_path(vgg, IMAGES)
    assert len(path) == 17 and len(candidates(vgg, path, 4)) == 12
    assert candidates(vgg, path, 0) == candidates(vgg, path, 1), "the first layer is never factorized"
    assert path[-1].name not in candidates(vgg, path, 0), "nor is the last"
    with pytest.raises(
        CuttlefishError, match="K = 17 leading dense layers is out of range: the main path has 17 layers"
    ):
        candidates(vgg, path, 17)


def test_nothing_to_factorize():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(8 * 28 * 28, 2)
    )
    with pytest.raises(CuttlefishError, match="no layer to factorize between its first and its last.*1"):
        main_path(model, IMAGES)


def test_blocks_of_linear_layers():
    assert block_name("blocks.3.mlp.fc1") == "blocks.3"
    assert block_name("encoder.layer.11.attention.q") == "encoder.layer.11"
    assert block_name("head") == "head" and block_name("mlp.fc") == "mlp"


def test_one_repeat_is_none():
    with pytest.raises(CuttlefishError, match="repeats=1 must be at least 2"):
        profile_stacks(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), torch.ones(1, 8), repeats=1)
