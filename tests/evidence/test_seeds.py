import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuttlefish.errors import CuttlefishError
from cuttlefish.evidence.quantities import (
    accuracy_lost,
    compression,
    compression_nonzero,
    compression_stored,
    speedup,
)
from cuttlefish.evidence.seeds import over_seeds, paired
from tests.helpers.planned_runs import ran


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0, 100), min_size=2, max_size=8))
def test_mean_and_sample_deviation(values):
    runs = [ran("full", seed, accuracy_final=value, accuracy_best=100.0) for seed, value in enumerate(values)]
    over = over_seeds(runs, lambda record: record.accuracy_final)
    assert over.n == len(values)
    assert over.mean == pytest.approx(np.mean(values))
    assert over.std == pytest.approx(np.std(values, ddof=1), abs=1e-9)


def test_one_seed_has_no_deviation_and_a_gap_no_mean():
    over = over_seeds([ran("full")], lambda record: record.accuracy_final)
    assert (over.std, over.text("{:.1f}".format)) == (None, "76.0")
    one_switched = [ran("full"), ran("full", 1, switch_epoch=4)]
    assert over_seeds(one_switched, lambda record: record.switch_epoch) is None
    assert over_seeds([], lambda record: 1) is None


@pytest.mark.parametrize("other, words", [
    (dict(seed=1, scale="paper"), "several scales cannot be averaged: paper, reduced"),
    (dict(seed=1, device="a GPU"), "several kinds of hardware"),
    (dict(seed=1, precision="bf16"), "several kinds of hardware"),
    (dict(seed=0), "a seed was given twice to an average: seeds 0, 0"),
])  # fmt: skip
def test_what_must_not_be_averaged_is_refused(other, words):
    with pytest.raises(CuttlefishError, match=words):
        over_seeds([ran("full", 0), ran("full", **other)], lambda record: 1.0)


def test_pairs_are_of_the_same_seed():
    left, right = [ran("low", seed) for seed in (0, 1, 2)], [ran("full", seed) for seed in (2, 0, 5)]
    assert [(a.record.seed, b.record.seed) for a, b in paired(left, right)] == [(0, 0), (2, 2)]


def test_speedup_is_over_seeds_of_the_same_hardware_and_without_the_baseline_s_logged_ranks():
    times = {"compute_seconds": 410.0, "wall_seconds": 500.0, "seconds": {"ranks": 10.0}}
    full = [ran("full", seed, **times) for seed in (0, 1)]
    low = [ran("low", seed, compute_seconds=seconds) for seed, seconds in ((0, 80.0), (1, 120.0), (2, 1.0))]
    assert speedup(low, full) == pytest.approx(4.0)
    assert speedup(low, [ran("full", device="a GPU")]) is None
    assert speedup(low, [ran("full", precision="bf16")]) is None
    assert speedup(low, []) is None
    times |= {"compute_seconds": 400.0, "ranks": {"a": 1}}
    low_rank = [ran("full", seed, **times) for seed in (0, 1)]
    assert speedup(low, low_rank) == pytest.approx(4.0), "a low-rank baseline needed its ranks"


def test_each_definition_of_size_has_its_own_ratio():
    sizes = {"params_full": 1000, "params_total": 500, "params_nonzero": 250, "params_stored_bits": 3200}
    record = ran("low", **sizes).record
    assert (compression(record), compression_nonzero(record), compression_stored(record)) == (2.0, 4.0, 10.0)


def test_accuracy_lost_is_paired():
    full = [ran("full", 0, accuracy_final=77.0), ran("full", 1, accuracy_final=70.0)]
    assert accuracy_lost([ran("low", 0, accuracy_final=75.5)], full) == pytest.approx(1.5)
    assert accuracy_lost([ran("low", 3)], full) is None
