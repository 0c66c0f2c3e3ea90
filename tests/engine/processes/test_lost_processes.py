"""Processes that die, hang or vanish behind a cut network: restarted from the checkpoint, or told in one
sentence within a time-out."""

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

from cuttlefish.config.validate import to_dict
from cuttlefish.engine.processes import launch as launch_module
from cuttlefish.errors import CuttlefishError
from cuttlefish.record.folder import read_epochs
from cuttlefish.worker import run_config
from tests.helpers.comparing import differences
from tests.helpers.runs import little_config
from tests.helpers.waiting import wait_for

ROOT = Path(__file__).resolve().parents[3]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes through /proc"),
]
TWO = {"trainer__devices": 2, "recipe__epochs": 6, "trainer__threads": 1}


def below(pid: int) -> list[int]:
    """All descendants of a process."""
    found = [
        int(word)
        for task in Path(f"/proc/{pid}/task").glob("*/children")
        for word in task.read_text().split()
    ]
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
    assert (
        "going on after" in (tmp_path / "killed" / "log.txt").read_text()
        or "resumed after" in (tmp_path / "killed" / "log.txt").read_text()
    )
    assert record.status == "finished" and record.run_key == whole.run_key
    assert differences(tmp_path / "killed", record, tmp_path / "whole", whole) == []


def test_a_hanging_worker_ends_the_job_within_the_time_out(tmp_path, monkeypatch):
    monkeypatch.setattr(launch_module, "GRACE_SECONDS", 4)
    once_begun(tmp_path / "run", signal.SIGSTOP, os.getpid())
    began = time.monotonic()
    with pytest.raises(
        CuttlefishError,
        match=r"process 0 of 2 lost the others: .*minutes=0.2; .* \(process 1 of 2 answered nothing",
    ):
        run_config(
            little_config(
                tmp_path / "run", **{**TWO, "recipe__epochs": 5000, "trainer__timeout_minutes": 0.2}
            )
        )
    assert time.monotonic() - began < 400
    assert not below(os.getpid()) or all(rank(pid) is None for pid in below(os.getpid())), (
        "nothing is left behind"
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def on_two_nodes(folder: Path, *ports: int) -> list[subprocess.Popen]:
    """torchrun's agents of two nodes, both on this machine; ports: where each of them looks for the meeting
    point."""
    path = folder / "config.yaml"
    many = {**TWO, "trainer__devices": 1, "recipe__epochs": 5000, "trainer__timeout_minutes": 0.2}
    path.write_text(yaml.safe_dump(to_dict(little_config(folder / "run", **many))))
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nnodes",
        "2",
        "--nproc-per-node",
        "1",
        "--master-addr",
        "127.0.0.1",
    ]
    return [
        subprocess.Popen(
            [*command, "--master-port", str(port), "--node-rank", str(node), "-m", "cuttlefish.worker", str(path)],
            cwd=ROOT, stderr=subprocess.PIPE, text=True,
        )
        for node, port in enumerate(ports)
    ]  # fmt: skip


def test_a_vanished_machine_ends_the_others_with_one_sentence(tmp_path):
    """The first of two nodes, with the meeting point and its worker, is gone at once: as if its network had
    been cut."""
    port = free_port()
    agents = on_two_nodes(tmp_path, port, port)
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
    assert (
        len(sentences) == 1
        and "process 1 of 2 lost the others" in sentences[0]
        and "the same command goes on" in sentences[0]
    ), told


class Line:
    """Between a node and the meeting point on another. Once it is cut, what is sent is lost and nothing is
    closed."""

    def __init__(self, target: int):
        self.target, self.is_cut, self.ends = target, False, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self.listener.accept()
            self.ends.append(near)
            if not self.is_cut:
                self.ends.append(far := self._reached())
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._forward, args=pair, daemon=True).start()

    def _reached(self) -> socket.socket:
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self.target))
            except ConnectionRefusedError:  # that node is still starting
                time.sleep(0.05)

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        while data := source.recv(2**16):
            if not self.is_cut:
                target.sendall(data)
        if not self.is_cut:
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def apart(tmp_path):
    """Starts two nodes with a line between them; returns both and the line. None of their processes outlives
    the test."""
    started = []

    def start() -> tuple[list[subprocess.Popen], Line]:
        line = Line(free_port())
        nodes = on_two_nodes(tmp_path, line.target, line.port)
        started.extend(nodes)
        return nodes, line

    yield start
    for node in started:
        for pid in [*below(node.pid), node.pid] if node.poll() is None else []:
            os.kill(pid, signal.SIGKILL)
        node.communicate()


def ended(nodes: list[subprocess.Popen], seconds: float) -> list[str]:
    """What each of them said until it ended, which it must within so many seconds, and not well."""
    end = time.monotonic() + seconds
    said = [node.communicate(timeout=end - time.monotonic())[1] for node in nodes]
    assert all(node.returncode not in (0, None) for node in nodes)
    return ["\n".join(line for line in text.splitlines() if line.startswith("cuttlefish: ")) for text in said]


def test_a_network_silent_before_workers_meet_ends_both_nodes(apart):
    nodes, line = apart()
    wait_for(lambda: all(below(node.pid) for node in nodes))
    line.is_cut = True
    for number, said in enumerate(ended(nodes, 0.2 * 60 + 30)):
        assert (
            said.startswith(f"cuttlefish: process {number} of 2 lost the others")
            and "the same command goes on" in said
        ), said


def test_a_meeting_point_silent_later_stops_nothing(apart, tmp_path):
    def trained() -> int:
        return len(read_epochs(tmp_path / "run"))

    for again in (False, True):
        nodes, line = apart()
        before = trained()
        wait_for(lambda before=before: trained() > before)
        line.is_cut, before = True, trained()
        wait_for(lambda before=before: trained() > before + 20)
        nodes[0].send_signal(signal.SIGTERM)
        assert all("state saved; the same command goes on" in said for said in ended(nodes, 30))
        assert ("going on after" in (tmp_path / "run" / "log.txt").read_text()) is again
