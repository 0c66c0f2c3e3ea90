import csv

from cuttlefish.loggers.base import Loggers
from cuttlefish.loggers.csv import METRICS, CsvLogger
from cuttlefish.loggers.jsonl import JsonLines


def rows(folder) -> list[dict]:
    with open(folder / METRICS, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def train(made_up, folder, resumed_from, epochs, **more):
    with Loggers([JsonLines(), CsvLogger()]) as loggers:
        loggers.start(made_up.run_info(folder, resumed_from))
        for epoch in epochs:
            loggers.epoch(made_up.epoch_row(epoch) | more)
        assert len(loggers) == 2


def test_a_row_for_each_epoch_and_a_column_for_each_number(made_up, tmp_path):
    train(made_up, tmp_path, 0, (1, 2))
    found = [(row["epoch"], row["train_loss"], row["seconds/train"]) for row in rows(tmp_path)]
    assert found == [("1", "2.3", "28.5"), ("2", "1.15", "28.5")]
    assert "phase" not in rows(tmp_path)[0]


def test_a_resumed_run_goes_on_after_the_checkpoint(made_up, tmp_path):
    train(made_up, tmp_path, 0, (1, 2, 3))
    train(made_up, tmp_path, 2, (3, 4), lr=0.5, density=0.25)
    found = [(row["epoch"], row["lr"], row["density"]) for row in rows(tmp_path)]
    assert found == [("1", "0.1", ""), ("2", "0.1", ""), ("3", "0.5", "0.25"), ("4", "0.5", "0.25")]
