"""Two runs that should be the same one."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cuttlefish.engine.saving.checkpoint import newest_checkpoint
from cuttlefish.record.fields import Record
from cuttlefish.record.folder import read_epochs, read_ranks

METRICS = (
    "accuracy_final accuracy_best loss_final switch_epoch switch_reason ranks k params_total epochs_trained"
).split()
TIMES = {"seconds", "compute_seconds", "wall_seconds"}


def final_state(folder: Path) -> dict[str, Any]:
    state = newest_checkpoint(folder / "checkpoints")
    assert state is not None
    return state


def differences(folder: Path, record: Record, other_folder: Path, other_record: Record) -> list[str]:
    """What differs between two finished runs, to the last bit, apart from clocks."""
    one, other = final_state(folder), final_state(other_folder)
    found = [field for field in METRICS if getattr(record, field) != getattr(other_record, field)]
    parts = ("model", "optimizer", "method", "random", "schedule")
    found += [part for part in parts if not same(one[part], other[part])]
    if not same(read_epochs(folder), read_epochs(other_folder)):
        found.append("epochs.jsonl")
    if read_ranks(folder) != read_ranks(other_folder):
        found.append("ranks.csv")
    return found


def same(one: Any, other: Any) -> bool:
    """To the last bit, times apart."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(
            key in TIMES or same(value, other[key]) for key, value in one.items()
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def assert_alike(folder: Path, record: Record, other_folder: Path, other_record: Record) -> None:
    """Equal but for the order of sums (float64): what several processes owe to one."""
    one, other = final_state(folder)["model"], final_state(other_folder)["model"]
    assert one.keys() == other.keys()
    assert max(float((one[name].double() - other[name].double()).abs().max()) for name in one) < 1e-8
    assert record.loss_final == pytest.approx(other_record.loss_final, abs=1e-8)
    for field in ("ranks", "switch_epoch", "k", "params_total", "epochs_trained", "accuracy_final"):
        assert getattr(record, field) == getattr(other_record, field), field
    losses = [[row["train_loss"] for row in read_epochs(where)] for where in (folder, other_folder)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-8)
