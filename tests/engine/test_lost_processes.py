"""Processes that die, hang or vanish behind a cut network: restarted from the checkpoint, or told in one sentence within a time-out."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from cuttlefish.engine import launch as launch_module
from cuttlefish.errors import CuttlefishError
from cuttlefish.validate import to_dict
from cuttlefish.worker import run_config
from tests.comparing import differences
from tests.runs import little_config

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes through /proc"),
]
TWO = {"trainer__devices": 2, "recipe__epochs": 6, "trainer__threads": 1}


def below(pid: int) -> list[int]:
    """All descendants of a process."""
    found = [int(word) for task in Path(f"/proc/{pid}/task").glob("*/children") for word in task.read_text().split()]
    return [*found, *(deeper for child in found for deeper in below(child))]


def rank(pid: int) -> str | None:
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next((word[5:].decode() for word in variables if word.startswith(b"RANK=")), None)


def once_begun(folder: Path, number: signal.Signals, parent: int, which: str = "1") -> threading.Thread:
    """Sends a signal to the worker with that RANK below `parent`, once a checkpoint is there."""

    def act() -> None:
        end = time.monotonic() + 200
        while not list(folder.glob("checkpoints/epoch_*.pt")) and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(next(pid for pid in below(parent) if rank(pid) == which), number)

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("which", ["0", "1"])
def test_a_killed_worker_s_job_begins_again_from_its_checkpoint(tmp_path, which, caplog):
    config = {**TWO, "trainer__max_restarts": 2}
    whole = run_config(little_config(tmp_path / "whole", "cuttlefish", **config))
    killer = once_begun(tmp_path / "killed", signal.SIGKILL, os.getpid(), which)
    record = run_config(little_config(tmp_path / "killed", "cuttlefish", **config))
    killer.join()
    assert f"process {which} of 2 was killed by SIGKILL" in caplog.text and "restart 1 of 2" in caplog.text
    assert "going on after" in (tmp_path / "killed" / "log.txt").read_text() or "resumed after" in (tmp_path / "killed" / "log.txt").read_text()
    assert record["status"] == "finished" and record["run_key"] == whole["run_key"]
    assert differences(tmp_path / "killed", record, tmp_path / "whole", whole) == []


def test_a_hanging_worker_ends_the_job_within_the_time_out(tmp_path, monkeypatch):
    monkeypatch.setattr(launch_module, "GRACE_SECONDS", 4)
    once_begun(tmp_path / "run", signal.SIGSTOP, os.getpid())
    began = time.monotonic()
    with pytest.raises(CuttlefishError, match=r"process 0 of 2 lost the others: .*minutes=0.2; .* \(process 1 of 2 answered nothing"):
        run_config(little_config(tmp_path / "run", **{**TWO, "recipe__epochs": 5000, "trainer__timeout_minutes": 0.2}))
    assert time.monotonic() - began < 400
    assert not below(os.getpid()) or all(rank(pid) is None for pid in below(os.getpid())), "nothing is left behind"


def test_a_machine_that_vanishes_ends_the_others_with_one_sentence(tmp_path):
    """The first of two nodes, with the meeting point and its worker, is gone at once: as if its network had been cut."""
    path = tmp_path / "config.yaml"
    many = {**TWO, "trainer__devices": 1, "recipe__epochs": 5000, "trainer__timeout_minutes": 0.2}
    path.write_text(yaml.safe_dump(to_dict(little_config(tmp_path / "run", **many))))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1"]
    agents = [
        subprocess.Popen(
            [*command, "--master-port", str(port), "--node-rank", str(node), "-m", "cuttlefish.worker", str(path)],
            cwd=ROOT, stderr=subprocess.PIPE, text=True,
        )
        for node in range(2)
    ]  # fmt: skip
    try:
        once_begun(tmp_path / "run", signal.SIGSTOP, agents[0].pid, "0").join()
        hanging = below(agents[0].pid)
        agents[0].kill()
        for pid in hanging:
            os.kill(pid, signal.SIGKILL)
        _, told = agents[1].communicate(timeout=300)
    finally:
        for agent in agents:
            agent.kill()
    sentences = [line for line in told.splitlines() if line.startswith("cuttlefish: process")]
    assert agents[1].returncode != 0
    assert len(sentences) == 1 and "process 1 of 2 lost the others" in sentences[0] and "the same command goes on" in sentences[0], told
