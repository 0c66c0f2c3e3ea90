"""The few lengths that batches of sentences are padded to, chosen to waste the least."""

import numpy as np

MOST = 16
"""The most lengths: each is a shape to compile for. With 16, padding adds 1 to 6 % to GLUE's tokens."""


def padded_lengths(lengths: np.ndarray, most: int = MOST) -> list[int]:
    """Return at most `most` ascending lengths that add the fewest tokens when sentences are padded to them.

    Exact, by dynamic programming over the distinct lengths: with cost(k, j) the fewest padded tokens of all
    sentences up to length j by k lengths, it is the least cost(k - 1, i) + j · #(i < length ≤ j) over i < j.

    Args:
        lengths: (N,) numbers of tokens.
    """
    choices, counts = np.unique(lengths, return_counts=True)
    up_to = np.cumsum(counts)
    cost, previous = choices * up_to, []
    earlier = np.triu(np.ones((len(choices), len(choices)), bool), 1)
    for _ in range(min(most, len(choices)) - 1):
        via = np.where(earlier, cost[:, None] + choices * (up_to - up_to[:, None]), np.iinfo(np.int64).max)
        previous.append(np.where(via.min(0) < cost, via.argmin(0), -1))
        cost = np.minimum(cost, via.min(0))
    at, chosen = len(choices) - 1, [int(choices[-1])]
    for before in reversed(previous):
        if before[at] >= 0:
            at = int(before[at])
            chosen.append(int(choices[at]))
    return chosen[::-1]
