"""Against the definitions, written out in plain arithmetic, and against SciPy's and scikit-learn's own calls."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from cuttlefish.tasks.text.measures import CLASSIFICATION, REGRESSION, measure


def test_classes_agree_with_the_definitions():
    random = np.random.RandomState(0)
    true, predicted = random.randint(0, 2, 400), random.randint(0, 2, 400) | random.randint(0, 2, 400)
    tp, fp, fn, tn = (
        int(((predicted == p) & (true == t)).sum()) for p, t in ((1, 1), (1, 0), (0, 1), (0, 0))
    )
    found = measure(CLASSIFICATION, predicted, true)
    assert found["accuracy"] == pytest.approx(100 * (tp + tn) / 400)
    assert found["f1"] == pytest.approx(100 * 2 * tp / (2 * tp + fp + fn))
    root = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert found["matthews"] == pytest.approx(100 * (tp * tn - fp * fn) / root)
    assert found["matthews"] == pytest.approx(100 * metrics.matthews_corrcoef(true, predicted))


def test_correlations_agree_with_the_definitions():
    random = np.random.RandomState(0)
    true = np.rint(random.rand(300) * 5).astype(np.float32)  # many ties
    predicted = (true + random.randn(300)).astype(np.float32)
    found = measure(REGRESSION, predicted, true)
    assert found["pearson"] == pytest.approx(100 * np.corrcoef(predicted, true)[0, 1], rel=1e-6)
    ranks = np.corrcoef(stats.rankdata(predicted), stats.rankdata(true))[0, 1]
    assert found["spearman"] == pytest.approx(100 * ranks, rel=1e-9)


def test_undefined_values_are_zero():
    ones, mixed = np.ones(4, np.int64), np.array([0, 1, 0, 1])
    assert measure(("matthews",), ones, mixed) == {"matthews": 0.0}
    assert measure(("f1",), ones * 0, mixed) == {"f1": 0.0}
    assert measure(REGRESSION, ones.astype(np.float32), mixed.astype(np.float32)) == {
        "spearman": 0.0,
        "pearson": 0.0,
    }
