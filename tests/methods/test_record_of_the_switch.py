"""What the record and the summary say of a switch: ranks on their floor, gradients to sum up."""

import torch
from torch import nn

from cuttlefish.auto import Cuttlefish
from cuttlefish.display.screen import facts, switch_words
from cuttlefish.worker import run_config
from tests.helpers.runs import little_config

KNOBS = {"k": 1, "switch_epoch": 1, "metric": "unscaled", "keep_dense": False}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3))


def test_layers_that_the_floor_lifts_are_named_after_a_resume_too():
    batch, model = torch.ones(2, 6), network()
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(8))  # stable rank 8
        model[2].weight.copy_(torch.ones(8, 8))  # stable rank 1
    found = Cuttlefish(model, batch, rank_floor=0.5, **KNOBS)
    assert found.on_floor == [] and found.epoch_end()
    assert found.ranks == {"1": 8, "2": 4} and found.on_floor == ["2"]
    assert Cuttlefish(network(), batch, state=found.state_dict()).on_floor == ["2"]


def test_the_record_and_the_summary_count_them(tmp_path):
    knobs = {f"method__{key}": value for key, value in KNOBS.items()}
    with_floor = little_config(
        tmp_path / "floor", "cuttlefish", method__rank_floor=0.9, method__frobenius_decay=0.0, **knobs
    )
    record = run_config(with_floor)
    assert record.on_floor == list(record.ranks) and len(record.ranks) == 16
    assert switch_words(record).endswith("; 16 of 16 ranks on their floor")
    record = run_config(little_config(tmp_path / "none", "cuttlefish", **knobs))
    assert record.on_floor is None and "floor" not in switch_words(record)


def test_gradients_that_processes_sum_up_are_counted_before_and_after(tmp_path):
    knobs = {"k": 1, "switch_epoch": 1, "rank_ratio": 0.25, "frobenius_decay": 0.0}
    record = run_config(
        little_config(tmp_path, "cuttlefish", **{f"method__{key}": value for key, value in knobs.items()})
    )
    assert record.gradient_bytes_full == 4 * record.params_full
    assert record.gradient_bytes_final == 4 * record.params_trainable < record.gradient_bytes_full
    assert "fewer) to all-reduce in a step" in facts(record)["gradients"]
