"""GLUE's metrics, by scikit-learn and SciPy, in percent."""

from collections.abc import Callable, Sequence

import numpy as np

Measure = Callable[[np.ndarray, np.ndarray], float]
CLASSIFICATION = ("accuracy", "f1", "matthews")
REGRESSION = ("spearman", "pearson")


def measure(names: Sequence[str], predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Return the metrics `names` of (N,) predictions.

    F1 is that of class 1. An undefined value is 0: the F1 or Matthews correlation of a single predicted
    class, a correlation with a constant.
    """
    return {name: 100 * MEASURES[name](predicted, true) for name in names}


def accuracy(predicted: np.ndarray, true: np.ndarray) -> float:
    return float((predicted == true).mean())


def f1(predicted: np.ndarray, true: np.ndarray) -> float:
    from sklearn.metrics import f1_score  # imported where it is called, because it takes a second

    return float(f1_score(true, predicted, zero_division=0.0))


def matthews(predicted: np.ndarray, true: np.ndarray) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(true, predicted))


def pearson(predicted: np.ndarray, true: np.ndarray) -> float:
    from scipy.stats import pearsonr

    return float(pearsonr(*_varying(predicted, true)).statistic) if _varying(predicted, true) else 0.0


def spearman(predicted: np.ndarray, true: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(*_varying(predicted, true)).statistic) if _varying(predicted, true) else 0.0


def _varying(predicted: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return both in float64, or None if one is constant, of which SciPy would warn."""
    both = predicted.astype(np.float64), true.astype(np.float64)
    return both if all(len(values) > 1 and np.ptp(values) > 0 for values in both) else None


MEASURES: dict[str, Measure] = {
    "accuracy": accuracy, "f1": f1, "matthews": matthews, "spearman": spearman, "pearson": pearson,
}  # fmt: skip
