"""A sweep of processes on this machine that is asked to stop, or loses one of them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial

import pytest

from cuttlefish.process import jobs as jobs_module
from cuttlefish.process.jobs import Job, run_jobs
from cuttlefish.process.signals import StopSignals, end_with_parent
from cuttlefish.record.folder import LOCK
from cuttlefish.record.record import validate_record
from tests.helpers.sweeps import ROOT, environment, needs, records, sweep, told, words_of
from tests.helpers.waiting import wait_for


def begun(folder):
    """The runs with a checkpoint: run key -> the process that is at it."""
    found = folder.glob("runs/*/*/checkpoints/epoch_*.pt")
    locks = [path for path in {path.parents[1] / LOCK for path in found} if path.exists()]
    return {path.parent.name: json.loads(path.read_text())["pid"] for path in locks}


@pytest.fixture
def started(tmp_path):
    """Starts a sweep as the leader of a process group, as a shell does; returns it once two of its runs have
    saved something.
    """
    sweeps, pids = [], []

    def start(*words, launcher="processes"):
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        how = {"cwd": tmp_path, "env": environment(), "text": True, "start_new_session": True}
        command = [sys.executable, str(ROOT / "run.py"), *words_of(tmp_path, launcher, *words)]
        sweeps.append(subprocess.Popen(command, **pipes, **how))
        wait_for(lambda: len(begun(tmp_path)) == 2)
        pids.extend(begun(tmp_path).values())
        return sweeps[-1]

    yield start
    for pid in pids:  # joblib's processes stay for a while, for a next job
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for one in sweeps:
        one.kill()
        one.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "send"), [(signal.SIGTERM, os.kill), (signal.SIGINT, os.killpg)])
def test_a_stopped_sweep_saves_its_runs_and_sums_up(started, tmp_path, number, send):
    parent = started("seed=0,1,2", "recipe.epochs=5000")
    pids = list(begun(tmp_path).values())
    send(parent.pid, number)
    _, said = parent.communicate(timeout=60)
    assert parent.returncode == 75, said
    summary = "cuttlefish: 3 runs: 2 interrupted (the same command goes on), 1 not begun"
    assert said.splitlines()[-1] == summary, said
    assert [record.status for record in records(tmp_path)] == ["interrupted", "interrupted"]
    assert said.count("state saved; the same command goes on") == 2 and "Traceback" not in said
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["processes", "joblib"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_runs_of_a_sweep_that_is_killed_save_themselves(started, tmp_path, launcher, number):
    if launcher == "joblib":
        needs("joblib")
    started("seed=0,1,2", "recipe.epochs=5000", launcher=launcher).send_signal(number)
    wait_for(lambda: [record.status for record in records(tmp_path)] == ["interrupted", "interrupted"])


@pytest.mark.slow
def test_a_killed_job_is_told_of_and_the_others_go_on(started, tmp_path):
    words = ("seed=0,1,2", "recipe.epochs=60")
    parent = started(*words)
    key, pid = next(iter(begun(tmp_path).items()))
    os.kill(pid, signal.SIGKILL)
    _, said = parent.communicate(timeout=200)
    assert parent.returncode == 2
    assert "its process was killed by SIGKILL; the same command goes on from the last checkpoint" in said
    assert said.splitlines()[-1].startswith("cuttlefish: 3 runs: 2 finished, 1 failed ("), said
    (lost,) = [record for record in records(tmp_path) if record.status == "failed"]
    assert key.startswith(lost.run_key) and "SIGKILL" in lost.error and validate_record(lost) == []
    again = sweep(tmp_path, "processes", *words)
    assert again.returncode == 0
    assert told(again)[-1] == "cuttlefish: 3 runs: 1 finished, 2 skipped (finished before)"


DEAF = """
import os, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, lambda *_: None)
Path(sys.argv[1]).touch()
time.sleep(60)
"""


PARENT = """
import sys
from pathlib import Path
from cuttlefish.process import jobs
jobs.ROOT = Path(sys.argv[1])
jobs.run_jobs([jobs.Job([], jobs.ROOT / "note.json")], 1)
"""


def test_a_job_goes_when_its_sweep_is_killed_early(tmp_path):
    """A stand-in for a job that is still importing: it holds the sweep's output open for as long as it lives."""
    (tmp_path / "run.py").write_text("import time\nprint('begun', flush=True)\ntime.sleep(60)")
    how = {"cwd": ROOT, "env": environment(), "stdout": subprocess.PIPE, "text": True}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], **how)
    assert parent.stdout.readline() == "begun\n"
    parent.kill()
    parent.communicate(timeout=20)


def test_a_job_of_a_killed_sweep_does_not_begin(tmp_path):
    """Forked, and the sweep gone before the kernel was asked to tell of that; a sweep's handlers are set
    meanwhile.
    """
    with StopSignals():
        sweep_is_gone = partial(end_with_parent, os.getpid() + 1)
        job = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(60)"], preexec_fn=sweep_is_gone
        )
        try:
            assert job.wait(timeout=20) == -signal.SIGTERM
        finally:
            job.kill()


@pytest.mark.parametrize(("stopped", "state"), [(True, "not begun"), (False, "failed")])
def test_a_job_stopped_before_it_can_hear_is_not_begun(stopped, state, tmp_path, monkeypatch):
    """SLURM warns every process of a job: one that is still importing ends by the signal that its sweep saves
    itself for.
    """
    (tmp_path / "run.py").write_text("")
    monkeypatch.setattr(jobs_module, "ROOT", tmp_path)
    job = Job(["seed=1"], tmp_path / "note.json")
    by_signal = "import os, signal; os.kill(os.getpid(), signal.SIGUSR1)"
    job.process = subprocess.Popen([sys.executable, "-c", by_signal])
    job.process.wait()
    job.complete_note(stopped)
    assert json.loads(job.note.read_text())["state"] == state


def test_a_second_ctrl_c_stops_the_jobs_at_once(tmp_path, monkeypatch):
    (tmp_path / "run.py").write_text(DEAF)
    monkeypatch.setattr(jobs_module, "ROOT", tmp_path)
    files = [tmp_path / "a", tmp_path / "b"]

    def press_twice():
        wait_for(lambda: all(path.exists() for path in files))
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)

    threading.Thread(target=press_twice, daemon=True).start()
    jobs = [Job([str(path)], path.with_suffix(".json")) for path in [*files, tmp_path / "c"]]
    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs, 2)
    assert [job.process and job.process.poll() for job in jobs] == [-signal.SIGINT, -signal.SIGINT, None]
