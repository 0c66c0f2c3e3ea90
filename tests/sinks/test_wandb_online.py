"""A whole run against a server: one that answers, one that never does, one that falls silent. Training ends well with each."""

from __future__ import annotations

import json
import time

import pytest

from cuttlefish.run_folder import read_epochs
from cuttlefish.sinks.wandb import SETTINGS
from cuttlefish.sinks.wandb_again import waiting
from cuttlefish.worker import run_config
from tests.runs import little_config
from tests.wandb_server import WandbServer

wandb = pytest.importorskip("wandb", reason="wandb is not installed")
WAIT = 4.0
"""Seconds in place of the sink's 20 and 60."""


@pytest.fixture
def run(tmp_path, monkeypatch):
    def against(how):
        with WandbServer(how) as server:
            monkeypatch.setenv("WANDB_BASE_URL", server.url)
            monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
            for name in ("init_timeout", "login_timeout", "finish_timeout"):
                monkeypatch.setitem(SETTINGS, name, WAIT)
            began = time.monotonic()
            config = little_config(tmp_path, recipe__epochs=3, sink__wandb={"mode": "online", "project": "tests", "entity": "me"})
            return run_config(config), server.lines, time.monotonic() - began

    yield against
    wandb.teardown()  # its process has met a server that is gone


def test_a_server_that_answers_gets_every_epoch(run, tmp_path):
    record, lines, _ = run("healthy")
    assert record["status"] == "finished" and "sinks_dropped" not in (record["extra"] or {}) and not list(waiting([tmp_path]))
    history = [json.loads(line) for line in lines["wandb-history.jsonl"]]
    sent = {row["epoch"]: row["train_loss"] for row in history if "train_loss" in row}
    assert sent == {row["epoch"]: row["train_loss"] for row in read_epochs(tmp_path)}
    summary = json.loads(lines["wandb-summary.json"][-1])
    assert summary["accuracy_final"] == record["accuracy_final"]


@pytest.mark.parametrize(("how", "told"), [("silent", "WandbSink stopped at start"), ("silent later", "WandbSink stopped at finish")])
def test_a_silent_server_costs_seconds_and_nothing_else(run, tmp_path, caplog, how, told):
    record, _, seconds = run(how)
    assert record["status"] == "finished" and len(read_epochs(tmp_path)) == 3
    assert told in caplog.text
    assert seconds < 10 * WAIT
    left = [] if how == "silent" else list(tmp_path.glob("wandb/run-*"))
    assert list(waiting([tmp_path])) == left and len(left) == (how != "silent"), "what was not sent is on the disk and can be sent later"
