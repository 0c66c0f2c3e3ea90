"""Metrics are those of the whole set, however it is shared between processes."""

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from cuttlefish.tasks.metrics import Accuracy, Gathered

RANDOM = np.random.RandomState(0)
LOGITS = torch.from_numpy(RANDOM.randn(23, 3))
CLASSES = torch.from_numpy(RANDOM.randint(3, size=23))


def classification(predictions, targets):
    return {
        "f1": f1_score(targets, predictions, average="macro"),
        "matthews": matthews_corrcoef(targets, predictions),
    }


def computed(make, outputs, targets, batch_size, processes):
    """Feeds each process its share of each batch, as the engine does; returns what each of them computes."""
    metrics = [make() for _ in range(processes)]
    for start in range(0, len(targets), batch_size):
        batch = slice(start, start + batch_size)
        size = len(targets[batch])
        for process, each in enumerate(metrics):
            share = slice(size * process // processes, size * (process + 1) // processes)
            if len(targets[batch][share]):
                each.update(outputs[batch][share], targets[batch][share])
            else:
                each.skip()
    sent = []
    for each in metrics:  # what a process hands in, before any can be computed
        with pytest.raises(StopIteration):
            each.compute(lambda value: sent.append(value) or next(iter(())))
    return [each.compute(lambda value: sent) for each in metrics]


@pytest.mark.parametrize("processes", [1, 2, 5])
@pytest.mark.parametrize("batch_size", [2, 7, 23])
def test_metrics_are_those_of_the_whole_set(batch_size, processes):
    found = computed(Accuracy, LOGITS, CLASSES, batch_size, processes)
    predicted = LOGITS.argmax(1)
    assert found == [{"accuracy": 100 * accuracy_score(CLASSES, predicted, normalize=False) / 23}] * processes
    found = computed(lambda: Gathered(classification), LOGITS, CLASSES, batch_size, processes)
    assert found == [classification(predicted.numpy(), CLASSES.numpy())] * processes


def test_values_keep_their_order():
    values, targets = LOGITS[:, :1], CLASSES.float()
    seen = []

    def score(predictions, wanted):
        seen.append((predictions, wanted))
        return {"pearson": pearsonr(predictions, wanted).statistic}

    found = computed(lambda: Gathered(score), values, targets, 4, 3)
    for predictions, wanted in seen:
        assert np.array_equal(predictions, values[:, 0]) and np.array_equal(wanted, targets)
    assert found[0]["pearson"] == pearsonr(values[:, 0], targets).statistic


def test_an_undefined_correlation_counts_as_zero():
    metrics = Gathered(lambda predictions, targets: {"pearson": np.nan})
    metrics.update(torch.ones(3), torch.ones(3))
    assert metrics.compute(lambda value: [value]) == {"pearson": 0.0}
