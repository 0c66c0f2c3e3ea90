"""Several processes: the same result as one, and none that dies is waited for."""

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from cuttlefish.config.schema import TrainerConfig
from cuttlefish.config.validate import to_dict
from cuttlefish.engine.processes.launch import LoopbackRendezvous, _may_go_better, _what_happened
from cuttlefish.engine.processes.world import TELLS
from cuttlefish.errors import EXIT_BAD_INPUT, EXIT_BUSY, EXIT_SAVED, Busy, CuttlefishError, Interrupted
from cuttlefish.record.folder import LOCK, read_epochs
from cuttlefish.record.record import read_record
from cuttlefish.worker import main, run_config
from tests.helpers.comparing import assert_alike, differences, final_state
from tests.helpers.runs import EXACT, little_config
from tests.helpers.waiting import wait_for

ROOT = Path(__file__).resolve().parents[3]


TOKENS = {
    "model": {
        "name": "vit_tiny_patch16_224", "source": "timm",
        "arguments": {"img_size": 12, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2},
    },
    "trainer__sync_bn": False, "recipe__epochs": 5, "method__switch_epoch": None,
}  # fmt: skip
"""No batch norm, linear layers, and E found."""


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("network", "switch_epoch"), [({}, 2), (TOKENS, 3)], ids=["convolutions", "tokens"])
def test_match_one_process(tmp_path, processes, network, switch_epoch):
    settings = {**EXACT, **network}
    alone = run_config(little_config(tmp_path / "alone", "cuttlefish", **settings))
    together = run_config(
        little_config(tmp_path / "together", "cuttlefish", trainer__devices=processes, **settings)
    )
    assert together.world_size == processes and alone.switch_epoch == switch_epoch and alone.ranks
    assert_alike(tmp_path / "alone", alone, tmp_path / "together", together)


def test_parts_of_steps_in_two_processes_are_whole_ones(tmp_path):
    """Accumulated over uneven shares and parts, and clipped: gradients are summed once a step."""
    settings = {**EXACT, **TOKENS, "recipe__epochs": 2, "recipe__clip_norm": 0.5, "method__switch_epoch": 1}
    alone = run_config(little_config(tmp_path / "alone", "cuttlefish", **settings))
    together = run_config(
        little_config(
            tmp_path / "together", "cuttlefish", trainer__devices=2, recipe__accumulate=3, **settings
        )
    )
    assert_alike(tmp_path / "alone", alone, tmp_path / "together", together)


@pytest.fixture
def worker():
    """Starts a worker of its own, as a user would; none outlives the test."""
    jobs = []

    def start(folder, **overrides):
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(to_dict(little_config(folder / "run", **overrides))))
        jobs.append(
            subprocess.Popen(
                [sys.executable, "-m", "cuttlefish.worker", str(path)],
                cwd=ROOT,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return jobs[-1]

    yield start
    for job in jobs:
        job.kill()  # the kernel then ends its workers
        job.wait()


def rank_of(pid):
    """The RANK that a process was started with."""
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next((int(word.removeprefix(b"RANK=")) for word in variables if word.startswith(b"RANK=")), None)


def children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes through /proc")
def test_a_killed_process_ends_the_job_and_a_signal_saves_it(tmp_path, worker):
    checkpoints = tmp_path / "run" / "checkpoints"
    many = {"recipe__epochs": 5000, "trainer__devices": 2, "trainer__timeout_minutes": 0.25}
    job = worker(tmp_path, **many)
    wait_for(lambda: list(checkpoints.glob("epoch_*.pt")))
    victim = next(pid for pid in children(job.pid) if rank_of(pid) == 1)
    killed = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    _, told = job.communicate(timeout=120)
    assert job.returncode == EXIT_BAD_INPUT and time.monotonic() - killed < 60
    assert told.splitlines()[-1] == (
        "cuttlefish: process 1 of 2 was killed by SIGKILL, and the others were stopped; the same command goes on from the last checkpoint"
    )

    trained = final_state(tmp_path / "run")["progress"]["trained"]
    job = worker(tmp_path, **many)
    wait_for(lambda: final_state(tmp_path / "run")["progress"]["trained"] > trained)
    job.send_signal(signal.SIGTERM)
    _, told = job.communicate(timeout=120)
    assert job.returncode == EXIT_SAVED and "stopped by SIGTERM; the same command goes on" in told
    assert read_record(tmp_path / "run").status == "interrupted"
    assert len(read_epochs(tmp_path / "run")) == final_state(tmp_path / "run")["progress"]["trained"]


@pytest.mark.slow
def test_a_job_whose_run_was_taken_over_records_nothing(tmp_path, worker):
    job = worker(tmp_path, recipe__epochs=5000, trainer__devices=2)
    wait_for(lambda: list((tmp_path / "run" / "checkpoints").glob("epoch_*.pt")))
    theirs = json.dumps({"pid": 1, "machine": "another", "nonce": "theirs"})
    (tmp_path / "run" / LOCK).write_text(theirs)
    trained = len(read_epochs(tmp_path / "run"))
    _, told = job.communicate(timeout=120)
    assert (
        job.returncode == EXIT_BUSY and "the run was taken over by another process" in told.splitlines()[-1]
    )
    assert not (tmp_path / "run" / "record.json").exists() and (tmp_path / "run" / LOCK).read_text() == theirs
    assert len(read_epochs(tmp_path / "run")) <= trained + 1, "that of the moment"


def failure(exitcode, timestamp, message=""):
    found = ProcessFailure(local_rank=0, pid=1, exitcode=exitcode, error_file="none")
    found.timestamp, found.error_file_data = timestamp, {"message": {"message": message}}
    return found


@pytest.mark.parametrize(
    ("failures", "kind", "sentence", "again"),
    [
        ({0: failure(2, 5, "K is wrong"), 1: failure(-15, 5)}, CuttlefishError, "K is wrong", False),
        ({0: failure(-15, 5), 1: failure(3, 5, "taken")}, Busy, "taken", False),
        ({0: failure(75, 5, "saved"), 1: failure(75, 5, "saved")}, Interrupted, "saved", False),
        (
            {0: failure(1, 5, "lost its neighbour"), 1: failure(-9, 6)},
            CuttlefishError,
            "process 1 of 2 was killed by SIGKILL, and the others",
            True,
        ),
        (
            {0: failure(1, 5, "a bug"), 1: failure(2, 5, "process 1 of 2 lost the others")},
            CuttlefishError,
            r"process 0 of 2 failed \(a bug\)",
            True,
        ),
        (
            {0: failure(2, 5, "process 0 of 2 lost the others"), 1: failure(-9, 36)},
            CuttlefishError,
            r".* \(process 1 of 2 answered nothing",
            True,
        ),
        (
            {0: failure(1, 5, "timed out"), 1: failure(-9, 36)},
            CuttlefishError,
            r"process 0 of 2 failed \(timed out\), and the others",
            True,
        ),
    ],
)
def test_the_first_cause_is_told(failures, kind, sentence, again):
    error = _what_happened(failures, TrainerConfig(devices=2))
    assert type(error) is kind
    assert re.match(sentence, str(error))
    assert _may_go_better(failures) is again


@pytest.mark.parametrize(("exitcode", "kind"), [(2, CuttlefishError), (3, Busy), (75, Interrupted)])
def test_a_worker_that_could_leave_no_sentence_is_no_other_end(exitcode, kind):
    failures = {0: ProcessFailure(local_rank=0, pid=1, exitcode=exitcode, error_file="none")}
    error = _what_happened(failures, TrainerConfig(devices=2))
    assert (
        type(error) is kind
        and str(error) == f"process 0 of 2 ended with exit code {exitcode}, as it says above"
    )
    assert not _may_go_better(failures)


def test_a_disk_that_takes_no_error_file_changes_no_exit_code(tmp_path, monkeypatch, capsys):
    """Said aloud then; and not left by half, at which torch's launcher would fail itself."""
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    monkeypatch.setenv(TELLS, "1")
    assert main([str(tmp_path / "no.yaml")]) == 2
    assert (
        "cannot read" in json.loads((tmp_path / "error.json").read_text())["message"]["message"]
        and capsys.readouterr().err == ""
    )
    (tmp_path / "error.json").unlink()

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert main([str(tmp_path / "no.yaml")]) == 2
    assert capsys.readouterr().err.startswith("cuttlefish: cannot read") and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_bad_input_of_the_workers_is_not_tried_again(tmp_path, caplog):
    with pytest.raises(CuttlefishError, match="K = 40 leading dense layers is out of range"):
        run_config(
            little_config(
                tmp_path / "run", "cuttlefish", trainer__devices=2, trainer__max_restarts=3, method__k=40
            )
        )
    assert not (tmp_path / "run").exists() and "restart 1 of 3" not in caplog.text


def test_the_rendezvous_listens_on_the_loopback_interface_only():
    meeting = LoopbackRendezvous("id")
    with socket.create_connection(("127.0.0.1", meeting.port), timeout=5):
        pass
    lines = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    listening = [
        line[1] for line in lines if line[3] == "0A" and int(line[1].split(":")[1], 16) == meeting.port
    ]
    assert listening == [f"0100007F:{meeting.port:04X}"]
    store = meeting.next_rendezvous().store
    store.set("key", "value")
    assert store.get("key") == b"value"


def on_two_nodes(config, folder, *rendezvous):
    """torchrun's two agents on the loopback interface, which stand for two nodes."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(to_dict(config)))
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    ranks = [["--node-rank", str(node)] if "--master-addr" in rendezvous else [] for node in range(2)]
    # Else torch's workers find, after a restart, the addresses of those before it.
    variables = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return [
        subprocess.Popen(
            [*command, *rendezvous, *rank, "-m", "cuttlefish.worker", str(path)], cwd=ROOT, env=variables
        )
        for rank in ranks
    ]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return str(probe.getsockname()[1])


def elastic(restarts):
    return [
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        f"127.0.0.1:{free_port()}",
        "--rdzv-id",
        "job",
        "--max-restarts",
        str(restarts),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("meeting", ["static", "elastic"])
def test_two_machines_by_torchrun(tmp_path, meeting):
    alone = run_config(little_config(tmp_path / "alone", **EXACT))
    rendezvous = (
        ["--master-addr", "127.0.0.1", "--master-port", free_port()] if meeting == "static" else elastic(0)
    )
    nodes = on_two_nodes(little_config(tmp_path / "run", **EXACT), tmp_path, *rendezvous)
    assert [node.wait(timeout=120) for node in nodes] == [0, 0]
    together = read_record(tmp_path / "run")
    assert together.world_size == 2
    assert_alike(tmp_path / "alone", alone, tmp_path / "run", together)


@pytest.mark.slow
def test_torchrun_s_restart_goes_on_from_the_checkpoint(tmp_path):
    longer = {**EXACT, "recipe__epochs": 20}
    whole = run_config(little_config(tmp_path / "whole", trainer__devices=2, **longer))
    nodes = on_two_nodes(little_config(tmp_path / "run", **longer), tmp_path, *elastic(2))
    while not list(tmp_path.glob("run/checkpoints/epoch_*.pt")):
        assert all(node.poll() is None for node in nodes)
        time.sleep(0.05)
    (worker,) = Path(f"/proc/{nodes[1].pid}/task/{nodes[1].pid}/children").read_text().split()
    os.kill(int(worker), signal.SIGKILL)
    assert [node.wait(timeout=240) for node in nodes] == [0, 0]
    record = read_record(tmp_path / "run")
    assert "going on after" in (tmp_path / "run" / "log.txt").read_text()
    assert differences(tmp_path / "run", record, tmp_path / "whole", whole) == []
