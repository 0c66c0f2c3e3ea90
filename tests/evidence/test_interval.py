from math import inf, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cuttlefish.errors import CuttlefishError
from cuttlefish.evidence.interval import Range, range_of, t_interval, variation_interval

NUMBERS = st.lists(st.floats(-1e3, 1e3).map(lambda value: round(value, 3)), min_size=2, max_size=12)


@settings(deadline=None)
@given(NUMBERS)
def test_the_t_interval_is_scipys(samples):
    if np.ptp(samples) > 1e-6:
        expected = stats.t.interval(0.95, len(samples) - 1, loc=np.mean(samples), scale=stats.sem(samples))
        assert t_interval(samples) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_one_sample_has_no_interval_and_equal_ones_have_a_point():
    assert t_interval([3.0]) is None and t_interval([]) is None
    assert t_interval([3.0, 3.0]) == (3.0, 3.0)


def test_the_interval_of_the_coefficient_of_variation():
    samples = [100.0, 104.0, 97.0, 101.0]
    mean, deviation = np.mean(samples), np.std(samples, ddof=1)
    low, high = (deviation / mean * sqrt(3 / stats.chi2.ppf(share, 3)) for share in (0.975, 0.025))
    assert variation_interval(samples) == pytest.approx((low, high))


@pytest.mark.parametrize("interval, place", [
    ((1, 2), "inside"), ((0.9, 1.5), "open"), ((2.1, 3), "outside"), ((0, 3), "open"), ((0, 0.5), "outside"),
])  # fmt: skip
def test_where_an_interval_lies(interval, place):
    assert Range(1, 2).place(interval) == place


def test_above_is_without_the_limit_and_at_least_is_with_it():
    assert range_of({"above": 0}).place((0.0, 1.0)) == "open"
    assert range_of({"at_least": 0}).place((0.0, 1.0)) == "inside"
    assert range_of({"above": 0}).place((-1.0, 0.0)) == "outside"
    assert range_of({"below": 1}).place((0.0, 1.0)) == "open"
    assert range_of({"above": 0}).limits() == (0.0, None) and range_of({"at_most": 5}).limits() == (None, 5.0)
    assert range_of({"within": [1, 2]}) == Range(1, 2) and Range() == Range(-inf, inf)


@pytest.mark.parametrize("limits", [{}, {"over": 1}, {"above": 0, "below": 1}])
def test_other_limits_are_refused(limits):
    with pytest.raises(CuttlefishError, match="not a range"):
        range_of(limits)
