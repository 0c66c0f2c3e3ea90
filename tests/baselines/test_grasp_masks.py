"""GraSP's masks: which scores are kept, and which images they are drawn from."""

import math
from itertools import cycle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.grasp.scores import Samples, choose_masks, draw_any, draw_per_class, removals, split_parts
from cuttlefish.errors import CuttlefishError


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(-4, 4), min_size=2, max_size=30), st.data())
def test_the_lowest_scores_are_kept_exactly(values, data):
    removed = data.draw(st.integers(0, len(values) - 1))
    flat = torch.tensor(values, dtype=torch.float64)
    cut = len(values) // 2
    found = {"a": flat[:cut].view(1, -1), "b": flat[cut:]}
    masks = choose_masks(found, removed)
    kept = torch.cat([masks[name].flatten() for name in found])
    assert {name: mask.shape for name, mask in masks.items()} == {
        name: score.shape for name, score in found.items()
    }
    assert int(kept.sum()) == len(values) - removed
    if removed:
        assert flat[~kept].min() >= flat[kept].max()
    assert kept.equal(torch.cat([choose_masks(found, removed)[name].flatten() for name in found]))
    original = torch.cat([mask.flatten() for mask in choose_masks(found, removed, "original").values()])
    assert (not removed and original.all()) or original.equal(
        flat <= flat.sort(descending=True).values[removed - 1]
    )


def test_the_original_keeps_one_more():
    found = {"a": torch.arange(10.0)}
    assert (
        int(choose_masks(found, 4)["a"].sum()) == 6
        and int(choose_masks(found, 4, "original")["a"].sum()) == 7
    )


def test_a_ratio_of_a_third_does_not_lose_one_to_truncation():
    total = 300
    lost = [
        ratio
        for ratio in (1 / 3, 0.29, 0.57, 0.9)
        if removals(ratio, total, "original") < removals(ratio, total)
    ]
    assert lost and removals(1 / 3, total) == 100 and removals(0.0, total) == 0
    assert removals(0.29, 100, "original") == 29 != int(0.29 * 100), "it is 1 - (1 - ratio) that is truncated"


def test_scores_that_are_no_numbers_give_no_order():
    with pytest.raises(CuttlefishError, match="not all finite"):
        choose_masks({"a": torch.tensor([1.0, math.nan])}, 1)


def stream(labels, size: int = 4) -> Samples:
    labels = torch.tensor(labels)
    images = torch.arange(len(labels)).view(-1, 1, 1, 1).double()
    return Samples(cycle(list(zip(images.split(size), labels.split(size), strict=True))))


def test_the_first_of_each_class_are_drawn_and_sorted():
    images, labels = draw_per_class(stream([2, 0, 0, 0, 1, 2, 1, 2, 1, 0]), 3, 2)
    assert labels.tolist() == [0, 0, 1, 1, 2, 2] and images.flatten().tolist() == [1, 2, 4, 6, 0, 5]


three_classes = st.lists(st.integers(0, 2), min_size=3, max_size=30).filter(
    lambda labels: len(set(labels)) == 3
)


@settings(deadline=None, max_examples=25)
@given(three_classes, st.integers(1, 9), st.integers(1, 4))
def test_draws_do_not_depend_on_the_size_of_batches(labels, size, per_class):
    """Several processes get smaller batches than one."""
    for draw in (
        lambda samples: draw_per_class(samples, 3, per_class),
        lambda samples: draw_any(samples, per_class),
    ):
        one, other = stream(labels, 4), stream(labels, size)
        for _ in range(3):
            (images, given), (same, _) = draw(one), draw(other)
            assert torch.equal(images, same)
            assert len(given) in (per_class, 3 * per_class)


def test_exactly_enough_samples_are_enough():
    """The original waits for one more of each class."""
    _, labels = draw_per_class(Samples([(torch.zeros(4, 1), torch.tensor([0, 1, 1, 0]))]), 2, 2)
    assert labels.tolist() == [0, 0, 1, 1]


def test_a_class_that_never_comes_ends_in_one_sentence():
    with pytest.raises(
        CuttlefishError, match=r"samples_per_class=2 of each of the 3 classes, .* held only 0 of class 1"
    ):
        draw_per_class(stream([0, 2, 0, 2, 2]), 3, 2)


def test_any_images_in_their_order():
    samples = stream([2, 0, 0, 0, 1, 2])
    images, labels = draw_any(samples, 5)
    assert images.flatten().tolist() == [0, 1, 2, 3, 4] and labels.tolist() == [2, 0, 0, 0, 1]
    assert draw_any(samples, 3)[0].flatten().tolist() == [5, 0, 1]


def test_parts_mix_classes_only_when_shuffled():
    drawn = torch.arange(8).view(-1, 1), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    assert [labels.tolist() for _, labels in split_parts(drawn)] == [[0] * 4, [1] * 4]
    assert [len(labels) for _, labels in split_parts(drawn, 3)] == [3, 3, 2]
    mixed = split_parts(drawn, shuffle=0)
    assert all(set(labels.tolist()) == {0, 1} for _, labels in mixed)
    assert sorted(torch.cat([images for images, _ in mixed]).flatten().tolist()) == list(range(8))
    assert len(split_parts((drawn[0][:1], drawn[1][:1]))) == 1
