"""Against the real packages; the event files are read back by TensorBoard's own reader."""

import logging
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cuttlefish.loggers.base import Loggers, RunInfo
from cuttlefish.loggers.tensorboard import FOLDER, TensorBoardLogger


def train(made_up, folder, resumed_from, epochs, config=None):
    with Loggers([TensorBoardLogger()]) as loggers:
        loggers.start(RunInfo(folder, config or made_up.CONFIG, made_up.KEY, resumed_from))
        loggers.profile(made_up.profile())
        for epoch in epochs:
            loggers.ranks(made_up.rank_rows(epoch - 1))
            loggers.epoch(made_up.epoch_row(epoch) | {"lr": 0.1 + resumed_from, "test_loss": None})
        loggers.finish(made_up.record(error="\x1b[31mred\x1b[0m\x00"))
        assert len(loggers) == 1


@pytest.fixture
def events(tmp_path):
    def read():
        return EventAccumulator(str(tmp_path / FOLDER)).Reload()

    return read


def curve(events, name):
    return [(event.step, pytest.approx(event.value)) for event in events.Scalars(name)]


def text(events, name) -> str:
    return events.Tensors(f"{name}/text_summary")[-1].tensor_proto.string_val[0].decode()


def test_metrics_ranks_and_speedups_by_epoch(made_up, tmp_path, events):
    train(made_up, tmp_path, 0, (1, 2))
    found = events()
    assert curve(found, "train_loss") == [(1, 2.3), (2, 1.15)]
    assert curve(found, "seconds/train") == [(1, 28.5), (2, 28.5)]
    ranks = made_up.ranks_of("layer3.1.conv2", (0, 1))
    assert curve(found, "ranks/layer3.1.conv2") == list(ranks.items())
    assert curve(found, "speedup/4×4")[0][0] == 0
    assert "test_loss" not in found.Tags()["scalars"]


def test_a_resumed_run_replaces_what_came_after_the_checkpoint(made_up, tmp_path, events):
    train(made_up, tmp_path, 0, (1, 2, 3))
    train(made_up, tmp_path, 2, (3, 4))
    assert curve(events(), "lr") == [(1, 0.1), (2, 0.1), (3, 2.1), (4, 2.1)]


def test_texts_have_no_secrets_and_no_control_characters(made_up, tmp_path, events):
    config = made_up.CONFIG | {"experiment_name": "\x1b]0;owned\x07name"}
    train(made_up, tmp_path, 0, (1,), config)
    told, record = text(events(), "config"), text(events(), "record")
    assert '"api_key": "REDACTED"' in told and "hunter2" not in told and "]0;ownedname" in told
    assert "[31mred[0m" in record and '"accuracy_final": 78.93' in record
    assert not set("\x1b\x07\x00") & set(told + record) and "u001b" not in told + record


def test_without_the_package_there_is_one_clear_warning(made_up, tmp_path, monkeypatch, caplog):
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with caplog.at_level(logging.WARNING), Loggers([TensorBoardLogger()]) as loggers:
        loggers.start(made_up.run_info(tmp_path))
    assert "pip install tensorboard); the run goes on without it" in caplog.text and not loggers
