import errno
import json

import pytest

from cuttlefish.loggers.jsonl import JsonLines
from cuttlefish.record import atomic as files
from cuttlefish.record.folder import read_epochs, read_ranks


def start(made_up, folder, resumed_from=0):
    logger = JsonLines()
    logger.start(made_up.run_info(folder, resumed_from))
    return logger


def train(made_up, logger, first, last):
    """As the trainer: the ranks of the weights before an epoch, then the epoch."""
    for trained in range(first, last):
        logger.ranks(made_up.rank_rows(trained))
        logger.epoch(made_up.epoch_row(trained + 1))


def test_rows_are_read_back_as_they_were(made_up, tmp_path):
    train(made_up, start(made_up, tmp_path), 0, 3)
    assert read_epochs(tmp_path) == [made_up.epoch_row(epoch) for epoch in (1, 2, 3)]
    assert read_ranks(tmp_path) == [row for epoch in (0, 1, 2) for row in made_up.rank_rows(epoch)]


@pytest.mark.parametrize("kept", [0, 1, 3, 4])
def test_resume_continues_as_if_never_interrupted(made_up, tmp_path, kept):
    train(made_up, start(made_up, tmp_path / "straight"), 0, 6)
    train(made_up, start(made_up, tmp_path / "cut"), 0, 4)
    train(made_up, start(made_up, tmp_path / "cut", resumed_from=kept), kept, 6)
    for name in ("epochs.jsonl", "ranks.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_ranks_of_the_checkpoint_itself_survive(made_up, tmp_path):
    logger = start(made_up, tmp_path)
    train(made_up, logger, 0, 3)
    logger.ranks(made_up.rank_rows(3))
    start(made_up, tmp_path, resumed_from=3)
    assert {row["epoch"] for row in read_ranks(tmp_path)} == {0, 1, 2, 3}


def test_a_torn_last_line_is_gone_after_resume(made_up, tmp_path):
    train(made_up, start(made_up, tmp_path), 0, 2)
    for name, torn in (("epochs.jsonl", '{"epoch": 3, "train_lo'), ("ranks.csv", "2,layer2.0.conv1,5")):
        with open(tmp_path / name, "a") as file:
            file.write(torn)
    assert [row["epoch"] for row in read_epochs(tmp_path)] == [1, 2]
    start(made_up, tmp_path, resumed_from=2)
    assert (tmp_path / "epochs.jsonl").read_text().count("\n") == 2
    assert "conv1,5\n" not in (tmp_path / "ranks.csv").read_text()
    assert not list(tmp_path.glob(".*.tmp"))


def test_numbers_that_json_lacks_become_null(made_up, tmp_path):
    logger = start(made_up, tmp_path)
    logger.epoch(made_up.epoch_row(1) | {"train_loss": float("nan"), "test_loss": None})
    row = json.loads((tmp_path / "epochs.jsonl").read_text())
    assert row["train_loss"] is None and row["test_loss"] is None


def test_the_log_keeps_earlier_messages_and_the_error(made_up, tmp_path):
    start(made_up, tmp_path).message("switch at epoch 5 (settled)")
    logger = start(made_up, tmp_path, resumed_from=5)
    logger.profile(made_up.profile())
    logger.finish(made_up.record("failed", error="Traceback\nValueError: loss is NaN"))
    text = (tmp_path / "log.txt").read_text()
    assert made_up.KEY in text and "ValueError: loss is NaN" in text
    assert "switch at epoch 5" in text and "resumed after epoch 5" in text and "K = 5" in text


def test_a_full_disk_loses_neither_row_nor_order(made_up, tmp_path, monkeypatch, caplog):
    train(made_up, start(made_up, tmp_path / "straight"), 0, 6)
    logger = start(made_up, tmp_path / "full")
    train(made_up, logger, 0, 2)
    with monkeypatch.context() as patch:
        # after the bytes have gone out: what is there must be taken back
        patch.setattr(files, "_flush", no_space)
        train(made_up, logger, 2, 4)
        shown = logger.settle()
        assert shown == f"cannot write to the log of the run in {tmp_path / 'full'}: No space left on device"
    assert [row["epoch"] for row in read_epochs(tmp_path / "full")] == [1, 2]
    assert sum("wait for room" in line for line in caplog.messages) == 1, "told once"
    train(made_up, logger, 4, 6)
    assert logger.settle() is None
    for name in ("epochs.jsonl", "ranks.csv"):
        assert (tmp_path / "full" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_a_disk_full_at_the_start_still_cuts_old_rows_back(made_up, tmp_path, monkeypatch):
    train(made_up, start(made_up, tmp_path), 0, 4)
    logger = JsonLines()
    with monkeypatch.context() as patch:
        patch.setattr(files, "_flush", no_space)
        logger.start(made_up.run_info(tmp_path, 2))
        logger.epoch(made_up.epoch_row(3))
    assert logger.settle() is None
    assert [row["epoch"] for row in read_epochs(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize("name, bad", [
    ("epochs.jsonl", '{"epoch": "one"}'), ("epochs.jsonl", "[" * 100_000), ("epochs.jsonl", '{"epoch": [1]}'),
    ("epochs.jsonl", "7"), ("ranks.csv", f'1,"{"x" * 2**20}",1,1,16'),
    ("ranks.csv", f"1,{'x' * 2**20},1,1,16"), ("ranks.csv", "a,b"),
])  # fmt: skip
def test_a_bad_row_is_left_out_and_told_and_the_run_goes_on_logging(made_up, tmp_path, caplog, name, bad):
    train(made_up, start(made_up, tmp_path / "straight"), 0, 4)
    train(made_up, start(made_up, tmp_path / "bad"), 0, 2)
    lines = (tmp_path / "bad" / name).read_text().splitlines()
    (tmp_path / "bad" / name).write_text("\n".join([*lines[:1], bad, *lines[1:], ""]))
    assert len(read_epochs(tmp_path / "bad")) == 2
    train(made_up, start(made_up, tmp_path / "bad", resumed_from=2), 2, 4)
    for file in ("epochs.jsonl", "ranks.csv"):
        assert (tmp_path / "bad" / file).read_bytes() == (tmp_path / "straight" / file).read_bytes()
    told = f"{name}: 1 damaged rows are left out"
    assert told in caplog.text and told in (tmp_path / "bad" / "log.txt").read_text()


@pytest.mark.parametrize("change, told", [
    (lambda rows: rows[:1] + rows[2:], "has lost the rows of epochs that the checkpoint has trained: 2"),
    (lambda rows: rows[:2], "has lost the rows of epochs that the checkpoint has trained: 3"),
    (lambda rows: rows[1:], "has lost the rows of epochs that the checkpoint has trained: 1"),
    (lambda rows: [], "has lost the rows of epochs that the checkpoint has trained: 1, 2, 3"),
    (lambda rows: rows + rows[1:2], "epochs.jsonl: 1 doubled rows are left out"), (lambda rows: rows, ""),
])  # fmt: skip
def test_rows_that_do_not_fit_the_checkpoint_are_told_on_resume(made_up, tmp_path, caplog, change, told):
    train(made_up, start(made_up, tmp_path), 0, 3)
    rows = (tmp_path / "epochs.jsonl").read_text().splitlines()
    (tmp_path / "epochs.jsonl").write_text("".join(f"{row}\n" for row in change(rows)))
    train(made_up, start(made_up, tmp_path, resumed_from=3), 3, 4)
    assert told in caplog.text and bool(caplog.text) == bool(told)
    found = [row["epoch"] for row in read_epochs(tmp_path)]
    assert sorted(set(found)) == found and found[-1] == 4


def test_what_can_never_be_written_keeps_nothing_else_from_being_written(made_up, tmp_path, caplog):
    logger = start(made_up, tmp_path)
    logger.message("\ud800")
    train(made_up, logger, 0, 1)
    assert len(read_epochs(tmp_path)) == 1
    assert "left out of the log" in caplog.text
    assert logger.settle() is None


def no_space(file):
    file.flush()
    raise OSError(errno.ENOSPC, "No space left on device")
