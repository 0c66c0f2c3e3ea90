import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuttlefish.errors import CuttlefishError
from cuttlefish.tasks.split import some_of_each_class, stratified, validation_split

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(np.array)


@settings(deadline=None)
@given(labels=LABELS, count=st.integers(1, 3))
def test_the_some_of_each_class_in_file_order(labels, count):
    expected = [index for index, label in enumerate(labels) if list(labels[:index]).count(label) < count]
    if min(np.bincount(labels)[np.unique(labels)]) < count:
        with pytest.raises(CuttlefishError, match=f"images_per_class={count}"):
            some_of_each_class(labels, count)
    else:
        assert some_of_each_class(labels, count).tolist() == expected


@pytest.mark.parametrize("count", [0, -1, 3])
def test_an_impossible_reduction_says_what_is_there(count):
    with pytest.raises(
        CuttlefishError, match=f"data.images_per_class={count} is not possible: class 1 has 2 training images"
    ):
        some_of_each_class(np.array([1, 1, 4, 4, 4]), count)


@settings(deadline=None)
@given(labels=LABELS, seed=st.integers(0, 2**32 - 1))
def test_a_seeded_draw_takes_as_many_of_each_class(labels, seed):
    count = np.bincount(labels)[np.unique(labels)].min()
    chosen = some_of_each_class(labels, count, seed)
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, some_of_each_class(labels, count, seed))
    assert set(np.bincount(labels[chosen])[np.unique(labels)]) == {count}


def test_a_seeded_draw_is_not_the_first_and_is_frozen():
    labels = np.repeat([0, 1], 100)
    drawn = some_of_each_class(labels, 5, 0)
    assert drawn.tolist() == [2, 26, 55, 75, 86, 118, 129, 164, 172, 192]
    assert (
        some_of_each_class(labels, 5, 1).tolist() != drawn.tolist() != some_of_each_class(labels, 5).tolist()
    )


@settings(deadline=None)
@given(labels=LABELS, fraction=st.sampled_from([1 / 10, 1 / 2]))
def test_parts_are_disjoint_complete_ordered_and_balanced(labels, fraction):
    labels = np.concatenate([labels, labels])
    kept, held_out = stratified(labels, fraction)
    assert sorted([*kept, *held_out]) == list(range(len(labels)))
    assert (np.diff(kept) > 0).all() and (np.diff(held_out) > 0).all()
    for label in np.unique(labels):
        members = (labels == label).sum()
        assert (
            abs((labels[held_out] == label).sum() - members * fraction) <= 0.5
            or (labels[held_out] == label).sum() == 1
        )


def test_cifars_split_is_45000_and_5000_and_frozen():
    labels = np.arange(50_000) % 10
    kept, held_out = validation_split(labels)
    assert (len(kept), len(held_out)) == (45_000, 5_000)
    assert np.bincount(labels[held_out]).tolist() == [500] * 10
    frozen = "69e66b7367a84107be2138dcbfd9b9321487d05e424722c7813e2c02d33db23c"
    assert hashlib.sha256(held_out.astype("<i8").tobytes()).hexdigest() == frozen


def test_a_class_of_one_image_cannot_be_split():
    with pytest.raises(CuttlefishError, match="class 2 has only 1"):
        validation_split(np.array([0, 0, 2]))
