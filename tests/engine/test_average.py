"""The exponential moving average of the weights: its values, the switch, resuming, and what is kept of it."""

import pytest
import torch
from torch import nn

from cuttlefish.engine.average import Average
from cuttlefish.engine.reevaluate import reevaluate
from cuttlefish.lowrank.surgery import factorize, low_rank_layers
from cuttlefish.worker import run_config
from tests.helpers.runs import little_config


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 6), nn.Linear(6, 2)
    )


def stir(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
        model[1].running_mean.add_(1.0)
        model[1].num_batches_tracked.add_(1)


def test_each_step_counts_by_one_minus_the_decay():
    model = network()
    average, expected = Average(model, 0.9), model[3].weight.detach().clone()
    for _ in range(3):
        stir(model)
        average.update(model)
        expected = 0.9 * expected + 0.1 * model[3].weight.detach()
    torch.testing.assert_close(average.module[3].weight, expected)
    assert average.module[1].num_batches_tracked == 3
    torch.testing.assert_close(average.module[1].running_mean, torch.full((8,), 0.1 * 3 + 0.09 * 2 + 0.081))


def test_a_model_has_the_average_inside_and_itself_after_even_an_error():
    model = network()
    average = Average(model, 0.5)
    first = model[3].weight.detach().clone()
    stir(model)
    own = model[3].weight.detach().clone()
    with pytest.raises(RuntimeError, match="stopped"), average.inside(model):
        assert torch.equal(model[3].weight, first)
        raise RuntimeError("stopped")
    assert torch.equal(model[3].weight, own)


def test_the_average_is_split_as_the_model_is():
    model = network()
    average = Average(model, 0.9)
    for _ in range(5):
        stir(model)
        average.update(model)
    dense = average.module[3].weight.clone()
    factorize(model, {"3": 2}, keep_dense=False)
    average.follow(model)
    assert low_rank_layers(average.module).keys() == {"3"}
    left, values, right = torch.linalg.svd(dense, full_matrices=False)
    best = left[:, :2] * values[:2] @ right[:2]
    torch.testing.assert_close(average.module[3].merged_weight(), best, atol=1e-5, rtol=1e-4)
    average.update(model)  # goes on, factor by factor
    assert not any(parameter.requires_grad for parameter in average.module.parameters())


def test_another_change_of_the_model_begins_a_new_average():
    model = network()
    average = Average(model, 0.9)
    model[4] = nn.Linear(6, 3)
    average.follow(model)
    assert torch.equal(average.module[4].weight, model[4].weight)


KNOBS = {"k": 1, "switch_epoch": 2, "rank_ratio": 0.25, "frobenius_decay": 0.0, "keep_dense": False}


def config(folder, **overrides):
    knobs = {f"method__{key}": value for key, value in KNOBS.items()}
    return little_config(folder, "cuttlefish", recipe__ema=0.8, **knobs, **overrides)


def test_a_run_with_an_average_resumes_behind_its_switch(tmp_path):
    whole = run_config(config(tmp_path / "whole"))
    assert whole.switch_epoch == 2 and len(whole.ranks) == 16
    run_config(config(tmp_path / "cut"))
    (tmp_path / "cut" / "record.json").unlink()
    (tmp_path / "cut" / "checkpoints" / "epoch_00004.pt").unlink()
    resumed = run_config(config(tmp_path / "cut"))
    assert (resumed.loss_final, resumed.metrics) == (whole.loss_final, whole.metrics)
    assert (
        whole.loss_final
        != run_config(
            little_config(tmp_path / "plain", "cuttlefish", **{f"method__{k}": v for k, v in KNOBS.items()})
        ).loss_final
    )


def test_what_is_kept_at_the_end_is_the_average(tmp_path):
    record = run_config(config(tmp_path))
    scores = reevaluate(config(tmp_path), record.run_key, tmp_path)
    assert scores.loss == record.loss_final and scores.metrics["accuracy"] == record.accuracy_final
