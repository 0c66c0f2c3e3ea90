"""Reduced and held-out sets, as fixed functions of labels and seeds."""

import numpy as np

from cuttlefish.errors import CuttlefishError

SEED = 20230608
"""Seed of the fixed splits. Changing it changes the validation split of every record."""


def some_of_each_class(labels: np.ndarray, count: int, seed: int | None = None) -> np.ndarray:
    """Return indices, in file order, of `count` images per class: the first ones, or drawn with a seed.

    Args:
        labels: (N,) class numbers.

    Raises:
        CuttlefishError: A class has fewer images.
    """
    random = None if seed is None else np.random.RandomState(seed)  # RandomState's streams never change
    chosen = []
    for label, members in _members(labels):
        if not 1 <= count <= len(members):
            raise CuttlefishError(
                f"data.images_per_class={count} is not possible: "
                f"class {label} has {len(members)} training images"
            )
        chosen.append((members if random is None else random.permutation(members))[:count])
    return np.sort(np.concatenate(chosen))


def validation_split(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return indices (train, validation) in file order, with a fixed tenth of each class for validation."""
    return stratified(labels, 1 / 10)


def stratified(labels: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Return indices (kept, held out) in file order: a fixed `fraction` of each class, at least one image."""
    random = np.random.RandomState(SEED)  # RandomState's streams never change, newer generators' may
    held_out = []
    for label, members in _members(labels):
        count = max(1, round(len(members) * fraction))
        if count == len(members):
            raise CuttlefishError(
                f"No validation split can be held out: class {label} has only {len(members)} training images"
            )
        held_out.append(random.permutation(members)[:count])
    chosen = np.sort(np.concatenate(held_out))
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen


def _members(labels: np.ndarray) -> list[tuple[int, np.ndarray]]:
    return [(int(label), np.flatnonzero(labels == label)) for label in np.unique(labels)]
