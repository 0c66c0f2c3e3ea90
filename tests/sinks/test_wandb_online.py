"""A whole run against a server: one that answers, one that never does, one that falls silent. Training ends well with each.

And what a run has left offline, sent to one that answers.
"""

from __future__ import annotations

import json
import time

import pytest

from cuttlefish.config import WandbConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.run_folder import read_epochs
from cuttlefish.sinks.wandb import SETTINGS
from cuttlefish.sinks.wandb_again import send, waiting
from cuttlefish.worker import run_config
from tests.runs import little_config
from tests.wandb_server import WandbServer

wandb = pytest.importorskip("wandb", reason="wandb is not installed")
WAIT = 4.0
"""Seconds in place of the sink's 20 and 60, where the server does not answer."""
IMPATIENT = {"healthy": (), "silent": ("init_timeout", "login_timeout"), "silent later": ("finish_timeout",)}


@pytest.fixture
def run(tmp_path, monkeypatch):
    def against(how):
        with WandbServer(how) as server:
            monkeypatch.setenv("WANDB_BASE_URL", server.url)
            monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
            for name in IMPATIENT[how]:
                monkeypatch.setitem(SETTINGS, name, WAIT)
            began = time.monotonic()
            config = little_config(tmp_path, recipe__epochs=3, sink__wandb={"mode": "online", "project": "tests", "entity": "me"})
            return run_config(config), server.lines, time.monotonic() - began

    wandb.teardown()  # W&B reads its server once a process, which may be one that another test used
    yield against
    wandb.teardown()  # and this one will be gone


def check_all_is_there(lines, folder, record):
    history = [json.loads(line) for line in lines["wandb-history.jsonl"]]
    sent = {row["epoch"]: row["train_loss"] for row in history if "train_loss" in row}
    assert sent == {row["epoch"]: row["train_loss"] for row in read_epochs(folder)}
    assert json.loads(lines["wandb-summary.json"][-1])["accuracy_final"] == record["accuracy_final"]
    assert not list(waiting([folder]))


def test_a_server_that_answers_gets_every_epoch(run, tmp_path):
    record, lines, _ = run("healthy")
    assert record["status"] == "finished" and "sinks_dropped" not in (record["extra"] or {})
    check_all_is_there(lines, tmp_path, record)


def test_what_was_left_offline_is_sent_once(tmp_path, monkeypatch):
    record = run_config(little_config(tmp_path, recipe__epochs=3, sink__wandb={"mode": "offline", "project": "tests"}))
    (folder,) = waiting([tmp_path])
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    with WandbServer("silent") as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        with pytest.raises(CuttlefishError, match="did not answer within 3 s; try again later"):
            send(folder, WandbConfig(project="tests", entity="me"), seconds=3)
    assert list(waiting([tmp_path])) == [folder]
    with WandbServer("healthy") as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        send(folder, WandbConfig(project="tests", entity="me"), seconds=60)
    check_all_is_there(server.lines, tmp_path, record)


@pytest.mark.parametrize(("how", "told"), [("silent", "WandbSink stopped at start"), ("silent later", "WandbSink stopped at finish")])
def test_a_silent_server_costs_seconds_and_nothing_else(run, tmp_path, caplog, how, told):
    record, _, seconds = run(how)
    assert record["status"] == "finished" and len(read_epochs(tmp_path)) == 3
    assert told in caplog.text
    assert seconds < 10 * WAIT
    left = [] if how == "silent" else list(tmp_path.glob("wandb/run-*"))
    assert list(waiting([tmp_path])) == left and len(left) == (how != "silent"), "what was not sent is on the disk and can be sent later"
