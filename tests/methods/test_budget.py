"""Full rank within the time of another run."""

import json

import pytest

from cuttlefish.errors import CuttlefishError
from cuttlefish.methods.budget import dense_epochs_within
from cuttlefish.record.record import read_record
from cuttlefish.worker import run_config
from tests.helpers.runs import little_config


@pytest.fixture
def finished(tmp_path):
    """A record of 4 epochs, its seconds a dense one 2.0, and 6.5 in all; with further fields."""

    def write(seconds=(2.0, 2.0, 1.0, 1.0), **fields):
        record = {
            "schema": 1,
            "run_key": "0123456789ab",
            "status": "finished",
            "compute_seconds": 6.5,
            "switch_epoch": 2,
        }
        (tmp_path / "record.json").write_text(json.dumps(record | fields))
        rows = [{"epoch": n, "seconds": {"train": train}} for n, train in enumerate(seconds)]
        (tmp_path / "epochs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return str(tmp_path)

    return write


@pytest.mark.parametrize(
    ("fields", "epochs"),
    [
        ({}, 3),
        ({"compute_seconds": 0.5}, 1),
        ({"compute_seconds": 60.0}, 4),
        ({"switch_epoch": None, "seconds": (2.0, 2.0, 2.0, 2.0)}, 3),
    ],
)
def test_whole_epochs_that_fit(finished, fields, epochs):
    assert dense_epochs_within(finished(**fields), most=4)[0] == epochs


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"status": "failed"}, "has not finished"), ({"switch_epoch": 0}, "has no dense epoch")],
)
def test_a_run_without_a_time_is_refused(finished, fields, said):
    with pytest.raises(CuttlefishError, match=said):
        dense_epochs_within(finished(**fields), most=4)


@pytest.mark.parametrize("damage", [None, [], {"train": None}, {"train": "x"}, {"train": 0}, {}])
def test_rows_without_a_training_time_are_passed_over(finished, tmp_path, damage):
    finished()
    rows = (tmp_path / "epochs.jsonl").read_text().splitlines()
    rows[0] = json.dumps({"epoch": 0, "seconds": damage})
    (tmp_path / "epochs.jsonl").write_text("\n".join(rows) + "\n")
    assert dense_epochs_within(str(tmp_path), most=4)[0] == 3


def test_the_schedule_ends_with_the_shorter_run(finished, tmp_path):
    config = {
        "method__match": finished(),
        "recipe__schedule": {"name": "cosine", "peak_lr": 0.05, "base_lr": 0.05},
    }
    run_config(little_config(tmp_path / "short", **config))
    run_config(
        little_config(tmp_path / "three", recipe__epochs=3, recipe__schedule=config["recipe__schedule"])
    )
    short, three = read_record(tmp_path / "short"), read_record(tmp_path / "three")
    assert short.epochs_trained == 3 and short.loss_final == three.loss_final
