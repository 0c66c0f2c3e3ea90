"""A whole run against a server: one that answers, one that never does, one that falls silent. Training ends well with each, and a
run that is asked to stop does not wait for any.

And what a run has left offline, sent to one that answers.
"""

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
from cuttlefish.errors import EXIT_SAVED, CuttlefishError
from cuttlefish.loggers.wandb import SETTINGS, WandbLogger
from cuttlefish.loggers.wandb_again import send, waiting
from cuttlefish.loggers.wandb_stop import cut_torn_record
from cuttlefish.record.folder import LOG, read_epochs
from cuttlefish.record.record import read_record, write_record
from cuttlefish.worker import run_config
from tests.loggers.wandb_file import items, read_run_file
from tests.loggers.wandb_server import WandbServer
from tests.runs import little_config

wandb = pytest.importorskip("wandb", reason="wandb is not installed")
WAIT = 4.0
"""Seconds in place of the logger's 20 and 60, where the server does not answer."""
KEY = "0123456789" * 4
ONLINE = {"mode": "online", "project": "tests", "entity": "me"}
IMPATIENT = {"healthy": (), "silent": ("init_timeout", "login_timeout"), "silent later": ("finish_timeout",)}


@pytest.fixture
def run(tmp_path, monkeypatch):
    def against(how):
        with WandbServer(how) as server:
            monkeypatch.setenv("WANDB_BASE_URL", server.url)
            monkeypatch.setenv("WANDB_API_KEY", KEY)
            for name in IMPATIENT[how]:
                monkeypatch.setitem(SETTINGS, name, WAIT)
            began = time.monotonic()
            config = little_config(tmp_path, recipe__epochs=3, logger__wandb=ONLINE)
            return run_config(config), server.lines, time.monotonic() - began

    wandb.teardown()  # W&B reads its server once a process, which may be one that another test used
    yield against
    wandb.teardown()  # and this one will be gone


def check_all_is_there(lines, folder, record):
    history = [json.loads(line) for line in lines["wandb-history.jsonl"]]
    sent = {row["epoch"]: row["train_loss"] for row in history if "train_loss" in row}
    assert sent == {row["epoch"]: row["train_loss"] for row in read_epochs(folder)}
    assert json.loads(lines["wandb-summary.json"][-1])["accuracy_final"] == record.accuracy_final
    assert not list(waiting([folder]))


def test_a_server_that_answers_gets_every_epoch(run, tmp_path):
    record, lines, _ = run("healthy")
    assert record.status == "finished" and "loggers_dropped" not in (record.extra or {})
    check_all_is_there(lines, tmp_path, record)


def test_what_was_left_offline_is_sent_once(tmp_path, monkeypatch):
    record = run_config(
        little_config(tmp_path, recipe__epochs=3, logger__wandb={"mode": "offline", "project": "tests"})
    )
    (folder,) = waiting([tmp_path])
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with WandbServer("silent") as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        with pytest.raises(CuttlefishError, match="did not answer within 3 s; try again later"):
            send(folder, WandbConfig(project="tests", entity="me"), seconds=3)
    assert list(waiting([tmp_path])) == [folder]
    with WandbServer("healthy") as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        send(folder, WandbConfig(project="tests", entity="me"), seconds=60)
    check_all_is_there(server.lines, tmp_path, record)


@pytest.mark.parametrize(
    ("how", "told"),
    [("silent", "WandbLogger stopped at start"), ("silent later", "WandbLogger stopped at finish")],
)
def test_a_silent_server_costs_seconds_and_nothing_else(run, tmp_path, caplog, how, told):
    record, _, seconds = run(how)
    assert record.status == "finished" and len(read_epochs(tmp_path)) == 3
    assert told in caplog.text
    assert seconds < 10 * WAIT
    left = [] if how == "silent" else list(tmp_path.glob("wandb/run-*"))
    assert list(waiting([tmp_path])) == left and len(left) == (how != "silent"), (
        "what was not sent is on the disk and can be sent later"
    )


def logged(folder):
    """The epochs and the summary in the run file that W&B has left in a run folder."""
    (path,) = folder.glob("wandb/run-*/*.wandb")
    records, summary = list(read_run_file(path)), {}
    for record in records:
        if record.HasField("summary"):
            summary |= items(record.summary.update)
    rows = [items(record.history.item) for record in records if record.HasField("history")]
    return [row["epoch"] for row in rows if "train_loss" in row], summary


@pytest.fixture
def server_of(monkeypatch):
    """W&B reads its server once a process."""

    def choose(server):
        wandb.teardown()
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)

    yield choose
    wandb.teardown()


def test_a_stopped_run_s_file_is_whole_and_sent_later(made_up, tmp_path, server_of):
    record = made_up.record("interrupted")
    with WandbServer("silent later") as server:
        server_of(server)
        logger = WandbLogger(WandbConfig(**ONLINE), stop_seconds=1.0)
        logger.start(made_up.run_info(tmp_path / "stopped"))
        for epoch in (1, 2, 3):
            logger.epoch(made_up.epoch_row(epoch))
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="the server did not take everything in time"):
            logger.finish(record)
        wandb.teardown()  # as at the exit of the process: nothing is left that could be waited for
        assert time.monotonic() - began < 4
    epochs, summary = logged(tmp_path / "stopped")
    assert epochs == [1, 2, 3] and summary["status"] == "interrupted"
    write_record(tmp_path / "stopped", record)
    (folder,) = waiting([tmp_path])
    with WandbServer("healthy") as server:
        server_of(server)
        send(folder, WandbConfig(project="tests", entity="me"), seconds=60)
        assert [json.loads(line)["epoch"] for line in server.lines["wandb-history.jsonl"]] == [1, 2, 3]
        server.lines.clear()
        logger = WandbLogger(WandbConfig(**ONLINE))
        logger.start(made_up.run_info(tmp_path / "next"))
        logger.epoch(made_up.epoch_row(1))
        logger.finish(record)
    assert [json.loads(line)["epoch"] for line in server.lines["wandb-history.jsonl"]] == [1], (
        "a server that answers is sent all at once"
    )
    assert "_filled" not in json.loads(server.lines["wandb-summary.json"][-1]) and not list(
        waiting([tmp_path])
    )


@pytest.mark.parametrize("content", [b"", b":W&B", b":W&B\xe1\xbe\x01" + bytes(range(256))])
def test_a_run_file_that_is_read_in_no_known_way_is_not_cut(content, tmp_path):
    path = tmp_path / "run.wandb"
    path.write_bytes(content)
    cut_torn_record(path)
    assert path.read_bytes() == content


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["silent later", "silent"])
def test_a_silent_server_does_not_keep_a_stopped_process(how, tmp_path):
    """Nor one that has not answered yet when the stop comes, before the first step."""
    run, path = tmp_path / "run", tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(to_dict(little_config(run, recipe__epochs=5000, logger__wandb=ONLINE))))
    with WandbServer(how) as server:
        variables = {**os.environ, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
        process = subprocess.Popen(
            [sys.executable, "-m", "cuttlefish.worker", str(path)],
            env=variables,
            cwd=Path(__file__).parents[2],
        )
        try:
            wait_for(
                lambda: len(read_epochs(run)) > 5 if how == "silent later" else list(run.glob("wandb/run-*"))
            )
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=100) == EXIT_SAVED
            assert time.monotonic() - began < 10
        finally:
            process.kill()
            process.wait()
    assert (run / LOG).exists()
    if how == "silent later":
        assert read_record(run).status == "interrupted" and list((run / "checkpoints").glob("epoch_*.pt"))
        assert (
            logged(run)[0] == [row["epoch"] for row in read_epochs(run)]
            and len(list(waiting([tmp_path]))) == 1
        )
