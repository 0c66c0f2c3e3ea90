from itertools import combinations

import numpy as np

from cuttlefish.tasks.text.lengths import padded_lengths


def padded_tokens(lengths, padded):
    return sum(min(limit for limit in padded if limit >= length) for length in lengths)


def test_no_other_choice_wastes_less():
    random = np.random.RandomState(0)
    for _ in range(60):
        lengths, most = random.randint(1, 12, random.randint(1, 20)), random.randint(1, 5)
        found = padded_lengths(lengths, most)
        choices = np.unique(lengths)
        possible = [
            chosen
            for count in range(1, most + 1)
            for chosen in combinations(choices, count)
            if chosen[-1] == choices[-1]
        ]
        assert found == sorted(set(found)) and len(found) <= most and found[-1] == choices[-1]
        assert padded_tokens(lengths, found) == min(padded_tokens(lengths, one) for one in possible)


def test_one_length_needs_no_choice():
    assert padded_lengths(np.array([7, 7, 7])) == [7]
