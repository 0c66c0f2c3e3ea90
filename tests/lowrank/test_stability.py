"""The switch rule against known epochs of the reference's rule and an independent re-derivation of it."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.stability import PRESETS, StabilityTest, moving_average


def first_true(test, curve, limit=400):
    for update in range(limit):
        if test.update({"layer": curve(update)}):
            return update
    return None


@pytest.mark.parametrize(("tau", "epoch"), [(5, 57), (10, 72), (20, 108), (30, 143), (40, 174)])
def test_reference_on_exponential_decay(tau, epoch):
    """Ê of the reference's detector on ⌊60 + 229·exp(−e/τ)⌋ without relaxation, worked out independently."""
    test = StabilityTest("reference", relaxed=())
    assert first_true(test, lambda e: math.floor(60 + 229 * math.exp(-e / tau))) + 1 == epoch


@pytest.mark.parametrize(
    ("preset", "minimum"), [("reference", 16), ("reference-imagenet", 6), ("reference-deit", 6)]
)
def test_reference_minimum(preset, minimum):
    test = StabilityTest(preset)
    assert first_true(test, lambda e: 100.0) + test.rule.lag == minimum
    assert test.reason == "at the minimum E"


PUBLISHED = {
    "reference": (15, 11, 15, {1: 0.5, 2: 0.25, 99: 0.1}),
    "reference-imagenet": (5, 5, 6, {3: 1.65, 6: 0.825, 99: 0.33}),
    "reference-deit": (5, 5, 6, {4: 2.055, 9: 1.0275, 99: 0.411}),
}
"""Span of the moving average, window, first update, and ε by the layers that are left at most."""


def settled_by_hand(curves, span, window, first, bounds):
    """pandas' ewm and a gradient by hand: layer → the update that settles it."""
    settled = {}
    for e in range(first, len(next(iter(curves.values())))):
        left = len(curves) - len(settled)
        bound = next(epsilon for count, epsilon in bounds.items() if left <= count)
        for name in curves.keys() - settled.keys():
            ranks = pd.Series(np.floor(curves[name][: e + 1]))
            smooth = ranks.ewm(span=span, adjust=False).mean().to_numpy()
            slopes = [smooth[1] - smooth[0], *((smooth[2:] - smooth[:-2]) / 2), smooth[-1] - smooth[-2]]
            if np.mean(np.abs(slopes[-window:])) <= bound:
                settled[name] = e
    return settled


@pytest.mark.parametrize("preset", PUBLISHED)
@pytest.mark.parametrize("seed", range(6))
def test_published_rules_rederived(preset, seed):
    random, epochs = np.random.default_rng(seed), np.arange(120)
    curves = {
        f"layer{i}": random.uniform(20, 90)
        + random.uniform(20, 300) * np.exp(-epochs / random.uniform(2, 12))
        for i in range(12)
    }
    test = StabilityTest(preset)
    told = [test.update({name: curve[e] for name, curve in curves.items()}) for e in epochs]
    expected = settled_by_hand(curves, *PUBLISHED[preset])
    assert test.settled == expected and len(expected) == 12
    assert told.index(True) == max(expected.values())


def test_relaxation_counts_the_layers_left_at_the_start():
    test = StabilityTest("reference")
    curves = {"a": lambda e: 50.0, "b": lambda e: 50.0, "c": lambda e: 100 + 0.4 * e * (e % 2 * 2 - 1)}
    curves["c"] = lambda e: 100 + 0.4 * e
    settled = [test.update({name: curve(e) for name, curve in curves.items()}) for e in range(20)]
    # c climbs 0.4 a step once floored and smoothed: not below 0.1 or 0.25, but at most 0.5 once it is alone.
    assert settled.index(True) == 16 and test.settled == {"a": 15, "b": 15, "c": 16}
    assert test.reason == "settled by relaxation"


def test_latch_and_no_latch():
    noisy = [10.0, 10.0, 99.0, 99.0]
    calm = [50.0, 20.0, 20.0, 20.0]
    for latch, expected in ((True, [False, False, True, True]), (False, [False, False, False, True])):
        test = StabilityTest("paper", latch=latch)
        assert [test.update({"a": a, "b": b}) for a, b in zip(noisy, calm, strict=True)] == expected
    latched = StabilityTest("paper", latch=True)
    assert [latched.update({"a": a, "b": b}) for a, b in [(1, 9), (1, 5), (7, 5)]] == [False, False, True]
    free = StabilityTest("paper")
    assert [free.update({"a": a, "b": b}) for a, b in [(1, 9), (1, 5), (7, 5)]] == [False, False, False]


def test_paper_rule_is_strict():
    test = StabilityTest("paper", threshold=0.5)
    assert [test.update({"a": value}) for value in (1.0, 1.5, 1.75)] == [False, False, True]


def test_flooring_hides_small_changes():
    test = StabilityTest("paper", floored=True)
    assert [test.update({"a": value}) for value in (10.1, 10.9)] == [False, True]


@settings(deadline=None, max_examples=20)
@given(st.floats(0.1, 1000.0), st.sampled_from([30, 60, 300]), st.floats(0.5, 2.0))
def test_scale_free_depends_on_neither_width_nor_length(scale, epochs, speed):
    """The same curve over the same share of the run settles at the same share, whatever the ranks' size."""

    def settle(factor, length):
        test = StabilityTest("scale_free", epochs=length)
        return first_true(test, lambda e: factor * (0.3 + 0.7 * math.exp(-e / length / 0.06 * speed)), length)

    assert settle(scale, epochs) == settle(1.0, epochs)
    assert settle(1.0, epochs) / epochs == pytest.approx(settle(1.0, 30) / 30, abs=0.1)


def test_minimum_epoch_and_window():
    assert first_true(StabilityTest("paper", min_epoch=10), lambda e: 5.0) + 1 == 10
    assert StabilityTest("scale_free", epochs=300).window == 30
    assert StabilityTest("scale_free", epochs=5).window == 2


def test_moving_average_against_pandas():
    values = np.random.default_rng(0).normal(size=50)
    assert np.allclose(moving_average(values, 15), pd.Series(values).ewm(span=15, adjust=False).mean())
    assert np.array_equal(moving_average(values, 1), values)


def test_bad_input():
    with pytest.raises(CuttlefishError, match="unknown stability preset 'refrence'"):
        StabilityTest("refrence")
    with pytest.raises(CuttlefishError, match="unknown stability option 'epsilon'"):
        StabilityTest("paper", epsilon=0.1)
    with pytest.raises(CuttlefishError, match="give epochs="):
        StabilityTest("scale_free")
    assert set(PRESETS) == {
        "scale_free",
        "paper",
        "reference",
        "reference-cifar",
        "reference-imagenet",
        "reference-deit",
    }


def test_a_rank_that_is_not_finite_names_its_layer():
    test = StabilityTest("reference")
    with pytest.raises(CuttlefishError, match="rank of layer 'b' is nan: training has diverged"):
        test.update({"a": 1.0, "b": float("nan")})
