"""IMP's mathematics: which weights go, how many are left, how long it all takes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from baselines.imp.levels import ladder, next_masks, number_to_prune, plan, shortened
from cuttlefish.config.recipe import RecipeConfig, ScheduleConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.methods.masks import prunable
from cuttlefish.methods.schedule import build_schedule
from cuttlefish.models.resnet_cifar import ResNet
from cuttlefish.models.vgg_cifar import Vgg19

EMPTY = {"w0": torch.ones(3)}, {"w0": torch.zeros(3, dtype=torch.bool)}
PAPER = RecipeConfig(epochs=300, schedule=ScheduleConfig(base_lr=0.1, peak_lr=0.8, warmup_epochs=5))


@st.composite
def networks(draw):
    """Weights with ties (few distinct magnitudes), of one to three tensors, and a mask each."""
    shapes = draw(st.lists(st.sampled_from([(3,), (2, 4), (5, 2), (2, 2, 3)]), min_size=1, max_size=3))
    seed, ties = draw(st.integers(0, 2**31)), draw(st.booleans())
    generator = torch.Generator().manual_seed(seed)
    weights = {f"w{i}": torch.randn(shape, generator=generator) for i, shape in enumerate(shapes)}
    if ties:
        weights = {name: (weight * 2).round() / 2 for name, weight in weights.items()}
    masks = {name: torch.rand(weight.shape, generator=generator) < 0.8 for name, weight in weights.items()}
    return weights, masks


def exact_by_hand(weights, masks, fraction_tenths):
    """Sort tuples (|w|, tensor, index) in plain Python; integers only for the count."""
    alive = [
        (abs(value), i, j)
        for i, name in enumerate(weights)
        for j, (value, kept) in enumerate(
            zip(weights[name].flatten().tolist(), masks[name].flatten().tolist(), strict=True)
        )
        if kept
    ]
    count = -(-fraction_tenths * len(alive) // 10)
    left = {(i, j) for _, i, j in sorted(alive)[count:]}
    flags = {name: [(i, j) in left for j in range(weights[name].numel())] for i, name in enumerate(weights)}
    return {name: torch.tensor(flags[name]).view(weight.shape) for name, weight in weights.items()}


def openlth_by_hand(weights, masks, fraction, ignore=()):
    """The published rule in numpy."""
    masks = {name: mask.numpy() for name, mask in masks.items()}
    remaining = sum(int(np.sum(mask)) for mask in masks.values())
    count = math.ceil(fraction * remaining)
    vector = np.concatenate([weights[name].numpy()[masks[name]] for name in weights if name not in ignore])
    threshold = np.sort(np.abs(vector))[count]
    return {
        name: mask if name in ignore else mask & (np.abs(weights[name].numpy()) > threshold)
        for name, mask in masks.items()
    }


@settings(deadline=None, max_examples=60)
@given(networks(), st.integers(1, 9))
@example(EMPTY, 2)
def test_exact_k_drops_exactly_the_smallest(network, tenths):
    weights, masks = network
    expected = exact_by_hand(weights, masks, tenths)
    if not any(mask.any() for mask in expected.values()):
        with pytest.raises(CuttlefishError, match="would leave none"):
            next_masks(weights, masks, fraction=tenths / 10)
        return
    found = next_masks(weights, masks, fraction=tenths / 10)
    assert all(torch.equal(found[name], expected[name]) for name in weights)
    assert all(not (found[name] & ~masks[name]).any() for name in weights), "a mask only shrinks"


@settings(deadline=None, max_examples=60)
@given(networks(), st.booleans())
@example(EMPTY, False)
def test_openlth_is_the_published_threshold(network, ignoring):
    weights, masks = network
    ignore = {"w0"} if ignoring and len(weights) > 1 else set()
    try:
        expected = openlth_by_hand(weights, masks, 0.2, ignore)
    except IndexError:
        expected = {}
    if not any(mask.any() for name, mask in expected.items() if name not in ignore):
        with pytest.raises(CuttlefishError, match="would leave none"):
            next_masks(weights, masks, fraction=0.2, mode="openlth", ignore=ignore)
        return
    found = next_masks(weights, masks, fraction=0.2, mode="openlth", ignore=ignore)
    assert all(np.array_equal(found[name].numpy(), expected[name]) for name in weights)


@pytest.mark.parametrize("mode", ["exact_k", "openlth"])
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), power=st.integers(-8, 8))
def test_scale_order_and_junk_under_the_mask_do_not_matter(mode, seed, power):
    generator = torch.Generator().manual_seed(seed)
    weights = {name: torch.randn(30, generator=generator) for name in "abc"}
    masks = next_masks(weights, {}, fraction=0.3, mode=mode)
    found = next_masks(weights, masks, fraction=0.3, mode=mode)
    scaled = next_masks(
        {name: weight * 2.0**power for name, weight in weights.items()}, masks, fraction=0.3, mode=mode
    )
    turned = next_masks(dict(reversed(weights.items())), masks, fraction=0.3, mode=mode)
    revived = {
        name: torch.where(masks[name], weight, torch.full_like(weight, 1e9))
        for name, weight in weights.items()
    }
    junk = next_masks(revived, masks, fraction=0.3, mode=mode)
    for other in (scaled, turned, junk):
        assert all(torch.equal(found[name], other[name]) for name in weights)
    dropped = torch.cat([weights[name][masks[name] & ~found[name]] for name in weights]).abs()
    kept = torch.cat([weights[name][found[name]] for name in weights]).abs()
    assert dropped.max() <= kept.min(), "one threshold for the whole network"


@pytest.mark.parametrize("mode", ["exact_k", "openlth"])
def test_count_recurrence_and_final_fraction(mode):
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(4000, generator=generator).unique() for name in "ab"
    }  # without ties within a tensor
    total, masks, left = sum(map(len, weights.values())), {}, []
    for _ in range(6):
        masks = next_masks(weights, masks, fraction=0.2, mode=mode)
        left.append(sum(int(mask.sum()) for mask in masks.values()))
    assert left == ladder(total, 0, 0.2, mode)[1:7]
    assert abs(left[-1] / total - 0.8**6) < 12 / total
    counts = [total, *left]
    extra = 1 if mode == "openlth" else 0
    assert all(
        after == before - math.ceil(0.2 * before) - extra
        for before, after in zip(counts, counts[1:], strict=False)
    )


def test_constant_weights_are_ties_for_both_modes():
    weights = {"a": torch.ones(10), "b": -torch.ones(10)}
    found = next_masks(weights, {}, fraction=0.2)
    assert found["a"].tolist() == [False] * 4 + [True] * 6 and found["b"].all()
    with pytest.raises(CuttlefishError, match="would leave none"):
        next_masks(weights, {}, fraction=0.2, mode="openlth")


def test_the_fraction_is_taken_exactly():
    assert math.ceil(0.07 * 100) == 8 and number_to_prune(100, 0, 0.07, "exact_k") == 7, (
        "0.07 · 100 is 7.000000000000001 in floats"
    )
    assert number_to_prune(2**24 + 5, 0, 0.2, "exact_k") == 3355445


def test_memory_layout_does_not_matter():
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)).round()
    plain = next_masks({"w": weight}, {}, fraction=0.5)
    last = next_masks({"w": weight.contiguous(memory_format=torch.channels_last)}, {}, fraction=0.5)
    assert torch.equal(plain["w"], last["w"])


def full_sizes(model, mode="exact_k"):
    weights = sum(weight.numel() for weight in prunable(model).values())
    rest = sum(parameter.numel() for parameter in model.parameters()) - weights
    return weights, [rest + kept for kept in ladder(weights, 0, 0.2, mode)]


def test_sizes_of_the_papers_networks():
    with torch.device("meta"):
        resnet, vgg = ResNet(10), Vgg19(10)
    weights, sizes = full_sizes(resnet)
    assert weights == 11_164_352 and sizes[0] == 11_173_962
    assert sizes[0] / sizes[8] == pytest.approx(5.94, abs=0.005) and sizes[0] / sizes[7] == pytest.approx(
        4.75, abs=0.005
    )
    weights, sizes = full_sizes(vgg)
    assert weights == 20_024_000
    assert sizes[0] / sizes[11] == pytest.approx(11.57, abs=0.005) and sizes[0] / sizes[10] == pytest.approx(
        9.27, abs=0.005
    )
    clean, openlth = full_sizes(resnet)[1], full_sizes(resnet, "openlth")[1]
    assert clean[8] - openlth[8] == 3, "the two modes differ by three weights after eight levels"


def test_published_plan():
    assert plan(PAPER, 8, rewind=None).rewind == 6, "one epoch after the warm-up"
    assert plan(PAPER, 8, rewind=6).epochs == 2652 and plan(PAPER, 11, rewind=None).epochs == 3534
    assert plan(RecipeConfig(epochs=200, schedule=PAPER.schedule), 3, rewind=None).rewind == 6, "on SVHN too"


@settings(deadline=None, max_examples=40)
@given(epochs=st.integers(2, 300), levels=st.integers(0, 12), warmup=st.integers(0, 5))
def test_equal_budget_takes_exactly_the_recipes_epochs(epochs, levels, warmup):
    recipe = RecipeConfig(
        epochs=epochs, schedule=ScheduleConfig(base_lr=0.1, peak_lr=0.8, warmup_epochs=min(warmup, epochs))
    )
    if epochs < levels + 1:
        with pytest.raises(CuttlefishError, match="do not fit"):
            plan(recipe, levels, rewind=None, equal_budget=True)
        return
    found = plan(recipe, levels, rewind=None, equal_budget=True)
    assert found.epochs == epochs and len(found.lengths) == levels + 1
    assert len(set(found.lengths[:-1])) <= 1 and found.lengths[-1] >= found.lengths[0] > found.rewind


def test_a_shorter_level_is_the_same_schedule_compressed():
    short = build_schedule(shortened(PAPER, 60).schedule, 60)
    assert [short.lr(epoch) for epoch in (0, 1, 29, 30, 45)] == pytest.approx([0.1, 0.8, 0.8, 0.08, 0.008])


def test_openlth_counts_ignored_layers():
    assert number_to_prune(100, 50, 0.2, "openlth") == 31 and number_to_prune(100, 50, 0.2, "exact_k") == 20
    assert ladder(100, 1000, 0.2, "openlth") == [100], "the quota passes what may be pruned"
