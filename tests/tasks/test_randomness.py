import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from cuttlefish.tasks.randomness import below, random_integers, splitmix64

MASK = (1 << 64) - 1


def plain_splitmix64(word: int) -> int:
    """In Python's unbounded integers."""
    word = (word + 0x9E3779B97F4A7C15) & MASK
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
    return word ^ (word >> 31)


def signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


def test_published_outputs():
    """The first outputs of the generator at seed 1234567, as its ports list them."""
    assert splitmix64(torch.tensor(1234567)) & MASK == 6457827717110365317
    assert plain_splitmix64(1234567 + 0x9E3779B97F4A7C15) == 3203168211198807973


@settings(deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_matches_unbounded_integers(words):
    expected = [signed(plain_splitmix64(word & MASK)) for word in words]
    assert splitmix64(torch.tensor(words)).tolist() == expected


@settings(deadline=None)
@given(words=st.lists(st.integers(-(2**70), 2**70), max_size=4), count=st.integers(0, 9))
def test_an_index_has_its_number_however_many_are_asked_for(words, count):
    key = 0
    for word in words:
        key = plain_splitmix64(key ^ (word & MASK))
    expected = [signed(plain_splitmix64((key + index * 0x9E3779B97F4A7C15) & MASK)) for index in range(count)]
    assert random_integers(tuple(words), count).tolist() == expected
    assert random_integers(tuple(words), count + 5)[:count].tolist() == expected


def test_keys_are_told_apart_by_value_and_place():
    keys = [(0,), (1,), (0, 1), (1, 0), (0, 0), (-1,), (2**63,)]
    assert len({tuple(random_integers(key, 3).tolist()) for key in keys}) == len(keys)


@pytest.mark.parametrize("bit", [0, 20, 40])
@pytest.mark.parametrize("limit", [1, 2, 9, 17])
def test_small_integers_are_uniform(limit, bit):
    values = below(limit, random_integers((7, bit), 50_000), bit)
    counts = torch.bincount(values, minlength=limit)
    assert len(counts) == limit
    assert limit == 1 or chisquare(counts).pvalue > 1e-3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_draws_the_same():
    assert torch.equal(random_integers((3, -4), 1000, "cuda").cpu(), random_integers((3, -4), 1000))
