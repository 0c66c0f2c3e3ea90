"""Whole runs against servers that answer, never do or fall silent, and what `wandb sync` sends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from cuttlefish.config.schema import WandbConfig
from cuttlefish.config.validate import to_dict
from cuttlefish.errors import EXIT_SAVED
from cuttlefish.loggers.base import Loggers
from cuttlefish.loggers.jsonl import JsonLines
from cuttlefish.loggers.wandb import SETTINGS, WandbLogger
from cuttlefish.record.folder import read_epochs
from cuttlefish.record.record import read_record
from cuttlefish.worker import run_config
from tests.helpers.runs import little_config
from tests.helpers.waiting import wait_for
from tests.helpers.wandb_file import finished_run, history_of, run_of
from tests.helpers.wandb_server import WandbServer

wandb = pytest.importorskip("wandb", reason="wandb is not installed")
WAIT = 4.0
"""Seconds in place of the logger's 20, where the server does not answer."""
KEY = "0123456789" * 4
ONLINE = {"mode": "online", "project": "tests", "entity": "me"}
OFFLINE = {"mode": "offline", "project": "tests", "entity": "me"}
IMPATIENT = {"healthy": (), "silent": ("init_timeout", "login_timeout"), "silent later": ("finish_timeout",)}


def environment(server) -> dict[str, str]:
    return {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY, "WANDB_ERROR_REPORTING": "false"}


@pytest.fixture
def run(tmp_path, monkeypatch):
    def against(how):
        with WandbServer(how) as server:
            for name, value in environment(server).items():
                monkeypatch.setenv(name, value)
            for name in IMPATIENT[how]:
                monkeypatch.setitem(SETTINGS, name, WAIT)
            began = time.monotonic()
            config = little_config(tmp_path, recipe__epochs=3, logger__wandb=ONLINE)
            return run_config(config), server.lines, time.monotonic() - began

    wandb.teardown()  # W&B reads its server once a process, which may be one that another test used
    yield against
    wandb.teardown()  # and this one will be gone


def sync(server, folders) -> None:
    """W&B's own command."""
    command = [sys.executable, "-m", "wandb", "sync", "--include-online", *map(str, folders)]
    variables = {**os.environ, **environment(server)}
    subprocess.run(command, env=variables, check=True, capture_output=True, timeout=100)


def losses(lines) -> list[tuple[int, float]]:
    history = [json.loads(line) for line in lines["wandb-history.jsonl"]]
    return [(row["epoch"], row["train_loss"]) for row in history if "train_loss" in row]


def check_all_is_there(lines, folder, record):
    assert losses(lines) == [(row["epoch"], row["train_loss"]) for row in read_epochs(folder)]
    assert json.loads(lines["wandb-summary.json"][-1])["accuracy_final"] == record.accuracy_final


def test_a_server_that_answers_gets_every_epoch(run, tmp_path):
    record, lines, _ = run("healthy")
    assert record.status == "finished" and "loggers_dropped" not in (record.extra or {})
    check_all_is_there(lines, tmp_path, record)


@pytest.mark.parametrize(
    ("how", "told"),
    [("silent", "WandbLogger stopped at start"), ("silent later", "WandbLogger stopped at finish")],
)
def test_a_silent_server_costs_seconds_and_nothing_else(run, tmp_path, caplog, how, told):
    record, _, seconds = run(how)
    assert record.status == "finished" and len(read_epochs(tmp_path)) == 3
    assert told in caplog.text
    assert seconds < 10 * WAIT
    if how == "silent later":
        with WandbServer("healthy") as server:
            sync(server, tmp_path.glob("wandb/run-*"))
        check_all_is_there(server.lines, tmp_path, record)


@pytest.fixture
def pieces(made_up, tmp_path):
    """Two offline pieces of one run; the third epoch of the first came after the checkpoint and is lost."""
    for resumed_from, last in ((0, 3), (2, 5)):
        with Loggers([JsonLines(), WandbLogger(WandbConfig(**OFFLINE))]) as loggers:
            loggers.start(made_up.run_info(tmp_path, resumed_from))
            for epoch in range(resumed_from, last):
                loggers.ranks(made_up.rank_rows(epoch))
                loggers.epoch(made_up.epoch_row(epoch + 1) | {"train_loss": 1.0 + epoch + resumed_from / 10})
            if last == 5:
                loggers.finish(made_up.record())
            assert len(loggers) == 2
        time.sleep(1.1)  # W&B names a piece by the second
    return sorted(tmp_path.glob("wandb/offline-run-*"))


EXPECTED = [(1, 1.0), (2, 2.0), (3, 3.2), (4, 4.2), (5, 5.2)]


def test_a_resumed_piece_holds_the_whole_history(pieces, made_up):
    first, second = [finished_run(next(piece.glob("*.wandb"))) for piece in pieces]
    assert run_of(first).run_id == run_of(second).run_id
    history = history_of(second)
    assert [(row["epoch"], row["train_loss"]) for row in history if "train_loss" in row] == EXPECTED
    steps = [row["_step"] for row in history]
    assert steps == list(range(len(steps)))
    assert [row["epoch"] for row in history if "ranks/layer3.1.conv2" in row] == [0, 1, 2, 2, 3, 4]


def test_pieces_that_are_sent_leave_each_epoch_once(pieces, made_up):
    with WandbServer("healthy") as server:
        for piece, epochs in zip(pieces, ([1, 2, 3], [1, 2, 3, 4, 5]), strict=True):
            sync(server, [piece])
            assert [epoch for epoch, _ in losses(server.lines)] == epochs
    assert losses(server.lines) == EXPECTED
    assert json.loads(server.lines["wandb-summary.json"][-1])["accuracy_final"] == 78.93


@pytest.mark.slow
@pytest.mark.parametrize(("how", "settings", "most"), [("silent", OFFLINE, 10), ("silent later", ONLINE, 40)])
def test_a_silent_server_does_not_keep_a_stopped_process(how, settings, most, tmp_path):
    """Offline a stopped run leaves at once; online the server has its time-out, and W&B some seconds."""
    run, path = tmp_path / "run", tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(to_dict(little_config(run, recipe__epochs=5000, logger__wandb=settings))))
    with WandbServer(how) as server:
        command = [sys.executable, "-m", "cuttlefish.worker", str(path)]
        variables = {**os.environ, **environment(server)}
        process = subprocess.Popen(command, env=variables, cwd=Path(__file__).parents[2])
        try:
            wait_for(lambda: len(read_epochs(run)) > 5)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=100) == EXIT_SAVED
            assert time.monotonic() - began < most
        finally:
            process.kill()
            process.wait()
    assert read_record(run).status == "interrupted" and list((run / "checkpoints").glob("epoch_*.pt"))
