"""Early-bird mathematics: masks, distance, the drawing rule, the L1 gradient, the choice by size."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.eb.masks import add_l1, channel_masks, drop_smallest, has_settled, mask_distance, nearest_drop

SCALES = st.lists(st.integers(-50, 50), min_size=6, max_size=30)


def split(size):
    """Two or three layers that together have so many channels."""
    return [2, 3, size - 5]


@settings(deadline=None, max_examples=80)
@given(SCALES, st.integers(0, 100))
def test_exact_drops_the_smallest_and_spares_one_a_layer(values, percent):
    scales, layers = torch.tensor(values, dtype=torch.float32), split(len(values))
    mask = channel_masks(scales, layers, percent / 100)
    order = sorted(range(len(values)), key=lambda i: (abs(values[i]), i))
    keep = [True] * len(values)
    for i in order[: percent * len(values) // 100]:
        keep[i] = False
    start = 0
    for size in layers:
        part = range(start, start + size)
        if not any(keep[i] for i in part):
            keep[max(part, key=lambda i: (abs(values[i]), -i))] = True
        start += size
    assert mask.tolist() == keep


@settings(deadline=None, max_examples=80)
@given(SCALES, st.sampled_from([0.0, 0.3, 0.5, 0.7, 0.99]))
def test_original_is_strictly_above_the_published_threshold(values, p):
    scales, layers = torch.tensor(values, dtype=torch.float32), split(len(values))
    magnitudes = np.abs(np.array(values, dtype=np.float32))
    published = magnitudes > np.sort(magnitudes)[int(p * len(values))]
    mask, start = channel_masks(scales, layers, p, "original").numpy(), 0
    for size in layers:
        own, theirs = mask[start : start + size], published[start : start + size]
        assert np.array_equal(own, theirs) or (not theirs.any() and own.sum() == 1)
        start += size


@pytest.mark.parametrize("threshold", ["exact", "original"])
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31), power=st.integers(-6, 6), p=st.floats(0, 1))
def test_signs_and_scale_do_not_matter_and_the_largest_stay(threshold, seed, power, p):
    generator = torch.Generator().manual_seed(seed)
    scales, layers = torch.randn(40, generator=generator), [10, 14, 16]
    flipped = scales * torch.sign(torch.randn(40, generator=generator)) * 2.0**power
    mask = channel_masks(scales, layers, p, threshold)
    assert torch.equal(mask, channel_masks(flipped, layers, p, threshold))
    assert all(part.any() for part in mask.split(layers)), "a layer keeps a channel"
    forced = torch.cat(
        [
            torch.arange(size) == part.abs().argmax()
            for part, size in zip(scales.split(layers), layers, strict=True)
        ]
    )
    chosen = mask & ~forced
    if chosen.any() and not mask.all():
        assert scales[chosen].abs().min() >= scales[~mask].abs().max()


def test_the_fraction_is_taken_exactly_and_its_ends_work():
    scales = torch.arange(1.0, 101.0)
    assert int(0.29 * 100) == 28 and int(channel_masks(scales, [100], 0.29).sum()) == 71
    assert channel_masks(scales, [100], 0.0).all() and int(channel_masks(scales, [50, 50], 1.0).sum()) == 2
    assert int(channel_masks(scales, [100], 0.0, "original").sum()) == 99, (
        "the published rule drops one all the same"
    )
    assert int(channel_masks(scales, [50, 50], 1.0, "original").sum()) == 2, "and has no y[n]"
    equal = torch.ones(100)
    assert int(channel_masks(equal, [50, 50], 0.3).sum()) == 70
    assert int(channel_masks(equal, [50, 50], 0.3, "original").sum()) == 2, (
        "nothing is strictly above; one a layer is spared"
    )


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_distance(pairs):
    one, other = (torch.tensor(column) for column in zip(*pairs, strict=True))
    assert (
        mask_distance(one, other)
        == mask_distance(other, one)
        == pytest.approx(sum(a != b for a, b in pairs) / len(pairs))
    )
    assert (mask_distance(one, other) == 0) == torch.equal(one, other) and 0 <= mask_distance(one, other) <= 1


def first_ticket(masks, **rule):
    return next((i for i in range(len(masks)) if has_settled(masks[: i + 1], **rule)), None)


def test_when_a_ticket_is_drawn():
    same = [torch.tensor([True, False, True, True])] * 12
    turning = [same[0], ~same[0]] * 6
    generator = torch.Generator().manual_seed(0)
    anything = [torch.rand(4, generator=generator) < 0.5 for _ in range(12)]
    assert first_ticket(same, fifo=5, eps=0.1) == 4, "five masks, four distances"
    assert first_ticket(same, fifo=5, eps=0.1, distance="consecutive") == 5, "five distances"
    assert (
        first_ticket(turning, fifo=5, eps=0.1) is None
        and first_ticket(turning, fifo=5, eps=0.1, distance="consecutive") is None
    )
    assert first_ticket(anything, fifo=5, eps=1.0) == 4
    assert first_ticket(same, fifo=5, eps=-0.1) is None
    assert first_ticket([], fifo=5, eps=1.0) is None


def test_the_two_distances_differ_on_a_slow_drift():
    drift = [torch.arange(20) >= i for i in range(12)]  # one channel of twenty more each time
    assert first_ticket(drift, fifo=5, eps=0.1, distance="consecutive") == 5, "neighbours are 0.05 apart"
    assert first_ticket(drift, fifo=5, eps=0.1) is None, "but the oldest is 0.2 away"
    assert (
        first_ticket(drift, fifo=5, eps=0.2) == 4
        and first_ticket(drift, fifo=5, eps=0.05, distance="consecutive") is None
    )


@settings(deadline=None)
@given(st.lists(st.floats(-2, 2, width=32), min_size=2, max_size=10), st.floats(0, 0.5))
def test_l1_moves_a_scale_by_lr_s_sign(values, s):
    scales = [torch.nn.Parameter(torch.tensor(values[:1])), torch.nn.Parameter(torch.tensor(values[1:]))]
    before = torch.cat([scale.detach().clone() for scale in scales]).double()
    for scale in scales:
        scale.grad = torch.zeros_like(scale)
    add_l1(scales, s)
    expected = torch.autograd.grad(s * before.requires_grad_().abs().sum(), before)[0]
    assert torch.allclose(torch.cat([scale.grad for scale in scales]).double(), expected, atol=1e-7)
    torch.optim.SGD(scales, lr=0.1).step()
    assert all(
        after == 0
        for after, value in zip(torch.cat(list(scales)).tolist(), values, strict=True)
        if value == 0
    ), "zero stays"


def test_l1_adds_to_what_is_there_and_skips_what_has_no_gradient():
    one, other = torch.nn.Parameter(torch.tensor([-1.0, 2.0])), torch.nn.Parameter(torch.ones(1))
    one.grad = torch.tensor([5.0, 5.0])
    add_l1([one, other], 0.5)
    assert one.grad.tolist() == [4.5, 5.5] and other.grad is None


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(-5, 200))
def test_nearest_by_bisection_is_nearest_by_trying_all(steps, target):
    sizes = [sum(steps[i:]) for i in range(len(steps) + 1)]  # never grows
    found = nearest_drop(sizes.__getitem__, len(steps), target)
    assert abs(sizes[found] - target) == min(abs(size - target) for size in sizes)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31))
def test_masks_are_nested_so_that_size_never_grows(seed):
    scales = torch.rand(30, generator=torch.Generator().manual_seed(seed))
    masks = [drop_smallest(scales, [7, 11, 12], dropped) for dropped in range(31)]
    assert all(not (after & ~before).any() for before, after in zip(masks, masks[1:], strict=False))
